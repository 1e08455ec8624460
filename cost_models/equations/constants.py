"""The calibrated numbers of the cost model, one meaning each.

A field is one number for one (GPU, framework, precision), or an array with one value
per strategy while many runs are fitted at once.  Where they come from, and how sure
they are, is :mod:`cost_models.calibrate.calibration`'s business.
"""

from dataclasses import dataclass

from cost_models.specs.units import Constant


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """Every constant that the equations of time and memory read."""

    # ------------------------------------------------------------- kernels
    gemm_fraction: Constant = 0.75
    """Share of the 16-bit peak that a large GEMM reaches in training."""
    gemm_fraction_8bit: Constant = 0.65
    gemm_fraction_4bit: Constant = 0.5
    gemm_half_depth: Constant = 128.0
    """Depth k at which a GEMM reaches half of its rate."""
    misaligned: Constant = 0.2
    """Slow-down of a GEMM whose width or depth on this rank is no multiple of 64."""
    expert_launch_s: Constant = 2e-6
    """Each further expert of a grouped GEMM."""
    grouped_gemm_fraction: Constant = 0.85
    """Rate of a grouped GEMM over that of a plain one."""
    quantize_passes: Constant = 1.0
    """Passes over a GEMM's inputs to cast them to 8 bits or fewer."""
    attention_forward_fraction: Constant = 0.6
    attention_backward_fraction: Constant = 0.5
    memory_fraction: Constant = 0.8
    """Share of the memory bandwidth that other kernels reach."""
    score_passes: Constant = 1.0
    """How often unfused scores are read and written, over the minimum."""
    memory_passes: Constant = 1.0
    """How often a layer's tensors are read and written, over the fused minimum."""
    moe_memory_passes: Constant = 1.2
    """The same for a mixture of experts: permutation, router, non-linearity of the experts."""
    backward_memory_ratio: Constant = 2.0
    loss_passes: Constant = 6.0
    """Passes over the fp32 logits of a micro-batch, both ways."""
    kernel_launch_s: Constant = 4e-6

    # --------------------------------------------------------- host overhead
    layer_floor_s: Constant = 3e-4
    """The host issues one layer's forward and backward kernels no faster than this."""
    layer_floor_tp_s: Constant = 1e-4
    """and this much slower where it issues tensor-parallel collectives."""
    layer_floor_pipeline_s: Constant = 0.0
    """and this much for each tensor-parallel rank where the pipeline crosses nodes."""
    expert_host_s: Constant = 2.5e-4
    """and this much slower for each expert on the rank, in layers that have them."""
    tp_step_s: Constant = 0.0
    """One step of a tensor-parallel ring that leaves the NVLink domain, beside its bytes."""
    micro_batch_s: Constant = 1e-3
    """Outside the layers, per micro-batch: loader, loss, schedule."""
    pipeline_micro_batch_s: Constant = 0.0
    """More of it for each micro-batch of a pipeline."""
    step_s: Constant = 5e-3
    """Outside everything, per step."""

    # -------------------------------------------------------- communication
    nvlink_fraction: Constant = 0.75
    """Share of the data sheet's bandwidth in training."""
    nvlink_latency_s: Constant = 6e-6
    nic_fraction: Constant = 0.7
    nic_latency_s: Constant = 2e-5
    nvlink_half_size_bytes: Constant = 8e6
    """Bytes on one wire at which half of its bandwidth is reached."""
    nic_half_size_bytes: Constant = 3e6
    switch_fraction: Constant = 0.69
    """Share of NVLink that an all-reduce inside the switch reaches (Hopper and later)."""
    collective_launch_s: Constant = 8e-6
    tp_hidden: Constant = 0.5
    """Share of tensor-parallel collectives hidden where they are pipelined with GEMMs."""
    cp_hidden: Constant = 0.8
    """Share of attention under which a context-parallel ring can hide."""
    ep_hidden: Constant = 0.7
    dp_hidden: Constant = 0.8
    """Share of the last backward pass under which gradients can be reduced."""
    fsdp_hidden: Constant = 0.85
    """Share of the compute under which weights can be gathered and gradients scattered."""
    p2p_hidden: Constant = 0.5
    overlap_price: Constant = 0.15
    """Seconds that compute loses for each second of communication hidden under it."""

    # ----------------------------------------------------------------- MoE
    moe_imbalance: Constant = 1.1
    """The fullest expert rank's tokens over the average."""
    moe_layer_s: Constant = 2e-4
    """Routing and permutation that the host or the GPU cannot hide, per layer whose experts'
    sizes nobody knows before the router has run."""

    # ---------------------------------------------------------------- step
    optimizer_fraction: Constant = 0.6
    """Share of the memory bandwidth that the optimizer reaches."""
    straggler: Constant = 0.01
    """Slow-down for each doubling of the nodes."""

    # -------------------------------------------------------------- memory
    framework_bytes: Constant = 1.5e9
    """CUDA context, libraries and workspaces."""
    pool_bytes: Constant = 2.5e8
    """Workspaces, and segments of the allocator that are partly filled."""
    communicator_bytes: Constant = 3e8
    """NCCL's buffers for each kind of group with more than one rank."""
    fragmentation: Constant = 0.04
    """Reserved over allocated activations, minus one."""
    state_fragmentation: Constant = 0.01
    """Reserved over allocated state, minus one."""
    activation_factor: Constant = 1.0
    """Activations that are there, over those that the tensors add up to."""
    update_fraction: Constant = 0.5
    """Share of what the optimizer step gathers that finds no room where activations were."""
    transient_fraction: Constant = 1.0
    """Working tensors of one layer's backward pass, over the activations it keeps."""
