"""The calibrated numbers of the cost model, one meaning each.

A field is one number for one (GPU, framework, precision), or an array with one value
per strategy while many runs are fitted at once.  None has a default: values come from a
calibration (:mod:`cost_models.calibrate.calibration`), units, bounds and sources from
``catalog/calibrations/priors.toml``.
"""

from dataclasses import dataclass

from cost_models.specs.units import Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Every constant that the equations of time and memory read."""

    # ------------------------------------------------------------- kernels
    gemm_fraction: Constant
    """Share of the 16-bit peak that a large GEMM reaches in training."""
    gemm_fraction_8bit: Constant
    """The same of the 8-bit peak."""
    gemm_fraction_4bit: Constant
    """The same of the 4-bit peak."""
    gemm_half_depth: Constant
    """Depth k, in scalars, at which a GEMM reaches half of its rate."""
    misaligned: Constant
    """Slow-down of a GEMM whose width or depth on this rank is no multiple of 64: its time over
    an aligned one's, minus 1."""
    expert_launch_s: Constant
    """Seconds for each further expert of a grouped GEMM."""
    grouped_gemm_fraction: Constant
    """Rate of a grouped GEMM over that of a plain one."""
    quantize_passes: Constant
    """Passes over a GEMM's inputs to cast them to 8 bits or fewer."""
    attention_forward_fraction: Constant
    """Share of the 16-bit peak that fused attention reaches, masked scores not counted."""
    attention_backward_fraction: Constant
    """The same backward, scores computed again."""
    memory_fraction: Constant
    """Share of the memory bandwidth that kernels reach which only move bytes."""
    score_passes: Constant
    """HBM traffic of unfused scores, over each kernel's reading and writing once."""
    memory_passes: Constant
    """HBM traffic of a layer's norms, activations and residuals, over every counted tensor read
    and written once.  Below 1 where tensors stay in the L2 cache between kernels, as those of
    small layers do, or are fused into GEMMs; above 1 where operations are kernels of their own."""
    moe_memory_passes: Constant
    """The same for a mixture of experts: permutation, router, non-linearity of the experts."""
    backward_memory_ratio: Constant
    """Time of the backward pass in kernels that move bytes, over the forward pass's."""
    loss_passes: Constant
    """Passes over the fp32 logits of a micro-batch, both ways."""
    kernel_launch_s: Constant
    """Launch and drain of one kernel."""

    # --------------------------------------------------------- host overhead
    layer_floor_s: Constant
    """The host issues one layer's forward and backward kernels no faster than this."""
    layer_floor_tp_s: Constant
    """Added to ``layer_floor_s`` where the host issues tensor-parallel collectives."""
    layer_floor_pipeline_s: Constant
    """Added to it for each tensor-parallel rank where the pipeline crosses nodes."""
    expert_host_s: Constant
    """Added to it for each expert on the rank, in layers that have them."""
    tp_step_s: Constant
    """One step of a tensor-parallel ring that leaves the NVLink domain, beside its bytes."""
    micro_batch_s: Constant
    """Outside the layers, per micro-batch: loader, loss, schedule."""
    pipeline_micro_batch_s: Constant
    """Added to ``micro_batch_s`` in a pipeline."""
    step_s: Constant
    """Outside everything, per step."""

    # -------------------------------------------------------- communication
    nvlink_fraction: Constant
    """Share of the data sheet's NVLink bandwidth that rings reach in training."""
    nvlink_latency_s: Constant
    """One step of a ring over NVLink, beside its bytes."""
    nic_fraction: Constant
    """Share of a GPU's part of the NICs that is reached in training."""
    nic_latency_s: Constant
    """One step over the network, beside its bytes."""
    nvlink_half_size_bytes: Constant
    """Bytes on one wire at which half of its bandwidth is reached."""
    nic_half_size_bytes: Constant
    """The same between nodes."""
    switch_fraction: Constant
    """Share of NVLink that an all-reduce inside the switch reaches (Hopper and later)."""
    collective_launch_s: Constant
    """Start of one collective, whatever its steps."""
    tp_hidden: Constant
    """Share of tensor-parallel collectives hidden where they are pipelined with GEMMs."""
    cp_hidden: Constant
    """Share of attention under which a context-parallel ring can hide."""
    ep_hidden: Constant
    """Share of the experts' exchanges hidden where another micro-batch runs beside them."""
    dp_hidden: Constant
    """Share of the last backward pass under which gradients can be reduced."""
    fsdp_hidden: Constant
    """Share of the compute under which weights can be gathered and gradients scattered."""
    p2p_hidden: Constant
    """Share of the sends between stages hidden where they overlap with compute."""
    overlap_price: Constant
    """Seconds that compute loses for each second of communication hidden under it."""

    # ----------------------------------------------------------------- MoE
    moe_imbalance: Constant
    """The fullest expert rank's tokens over the average."""
    moe_layer_s: Constant
    """Routing and permutation that the host or the GPU cannot hide, per layer whose experts'
    sizes nobody knows before the router has run."""

    # ---------------------------------------------------------------- step
    optimizer_fraction: Constant
    """Share of the memory bandwidth that the optimizer reaches."""
    straggler: Constant
    """Slow-down for each doubling of the nodes."""

    # -------------------------------------------------------------- memory
    framework_bytes: Constant
    """CUDA context, libraries and workspaces."""
    pool_bytes: Constant
    """Workspaces, and segments of the allocator that are partly filled."""
    communicator_bytes: Constant
    """NCCL's buffers for each kind of group with more than one rank."""
    fragmentation: Constant
    """Reserved over allocated activations, minus one."""
    state_fragmentation: Constant
    """Reserved over allocated state, minus one."""
    activation_factor: Constant
    """Activations that are there, over those that the tensors add up to; below 1 where a
    framework frees or shares tensors that the count keeps."""
    update_fraction: Constant
    """Share of what the optimizer step gathers that finds no room where activations were."""
    transient_fraction: Constant
    """Working tensors of one layer's backward pass, over half of the activations it keeps; above
    1 where gradients and copies of them are there at once."""
