"""What the training software does that the layout does not say.

A framework decides how many bytes a parameter's state takes, which tensors its kernels
keep for the backward pass, how layers are assigned to pipeline stages, and whether its
memory figure is what was allocated or what the allocator had reserved.  All of it is
data: ``catalog/frameworks/*.toml`` and ``catalog/tables/optimizers.toml``, each with its source.
"""

from dataclasses import dataclass
from typing import Literal, get_args

from cost_models.specs.errors import SpecError, require_not_negative

Partition = Literal["even", "embedding_and_head_as_layers", "parameter_weight"]
MemoryFigure = Literal["allocated", "reserved", "device"]

PARTITIONS: tuple[Partition, ...] = get_args(Partition)


@dataclass(frozen=True, slots=True, kw_only=True)
class Optimizer:
    """State of one parameter beyond its weight and gradient."""

    name: str
    moments_bytes: float
    """Sum over all moments; 8 for Adam in fp32."""
    master_bytes: float
    """The high-precision copy of a weight; 4, or 0 where the weights themselves are fp32."""
    source: str = ""

    def __post_init__(self) -> None:
        require_not_negative(
            "optimizer", moments_bytes=self.moments_bytes, master_bytes=self.master_bytes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Framework:
    """One training framework's habits."""

    name: str
    family: str
    """Frameworks of one family share calibration where one has few runs of its own."""

    weights_bytes: float = 2.0
    """Bytes of the weight that the GEMMs read, where it is not sharded."""
    master_remainder: bool = False
    """The fp32 master copy keeps only the 16 bits that a bf16 weight lacks."""
    grads_bytes: float = 4.0
    """Bytes per parameter of the buffer that accumulates gradients, sharded from ZeRO-2 on."""
    working_grads_bytes: float = 0.0
    """Bytes per parameter of a second, never sharded gradient, alive until a micro-batch's
    backward pass is over (nanotron's bf16 gradients)."""
    unsharded_bucket_bytes: float = 0.0
    """Bytes per parameter of buckets beside the gradients where data-parallel ranks shard nothing
    (PyTorch's DDP)."""
    update_gather_bytes: float = 0.0
    """Bytes per parameter of the copies through which a sharded optimizer's gradients and new
    weights travel."""
    update_gather_parameters: float = 0.0
    """Parameters that travel through ``update_gather_bytes`` at a time; 0 is all at once."""
    update_shard_bytes: float = 0.0
    """Bytes per parameter of the optimizer's shard, of the gradient's copy made for its update."""
    bucket_parameters: float = 40e6
    """Parameters whose gradients are reduced in one collective."""
    grad_reduce_bytes: float = 4.0
    """Bytes per parameter on the wire when gradients are reduced."""
    param_gather_bytes: float = 2.0
    """Bytes per parameter on the wire when weights are gathered."""
    overlaps_gradients: tuple[str, ...] = ("none", "zero1", "zero2", "zero3", "fsdp", "hsdp")
    """Kinds of sharding under which gradients are reduced during the last backward pass."""
    scatters_gradients: bool = True
    """ZeRO-1 reduces a gradient to the rank that owns it; else to all ranks."""
    accumulated_bytes: float = 0.0
    """Bytes moved per parameter and micro-batch to add a gradient to its buffer, where the GEMM
    of the weight gradient does not do it."""
    fsdp_weights_bytes: float = 2.0
    """Bytes per sharded weight under FSDP and ZeRO-3, besides the optimizer's master copy."""
    fsdp_grads_bytes: float = 4.0
    """Bytes per sharded gradient under FSDP and ZeRO-3."""
    eight_bit_weight_bytes: float = 2.0
    """Bytes per weight of its cast copies, plain and transposed, kept between micro-batches under
    FP8."""
    fsdp_prefetch_layers: float = 2.0
    """Layers whose gathered weights are on the GPU at once."""

    flash_attention: bool = True
    """The score matrix is never kept."""
    attention_speed: tuple[tuple[str, float], ...] = ()
    """Its attention kernel's share of the fastest one's speed, by architecture; else 1."""
    elementwise_passes: float = 1.0
    """Bytes that norms, residuals and activations move, over fused kernels'; eager PyTorch
    reads and writes every intermediate."""
    norm_saved_bytes: float = 2.0
    """Bytes per hidden scalar and norm: the norm's input (2), its fp32 copy (4) where unfused."""
    norm_output_saved: bool = True
    """The norm's output is kept for the next GEMM's weight gradient."""
    saves_gathered_inputs: bool = False
    """Under sequence-parallel the inputs of column-parallel GEMMs are kept whole, not in parts."""
    gathered_buffers: float = 0.0
    """16-bit buffers of a micro-batch's whole hidden states that are kept for sequence-parallel's
    collectives."""
    held_buffers: float = 0.0
    """16-bit buffers of the whole hidden states per layer that are freed before a collective has
    read them: the allocator cannot hand them out again until the GPU has caught up with the
    host."""
    held_pipelined_tp: int = 8
    """Tensor-parallel degree up to which hosts of a pipeline were seen to run so far ahead that
    ``held_buffers`` counts."""
    moe_output_saved: bool = False
    """The experts' outputs are kept to weigh them after the combine, not before FC2."""
    activation_saved_bytes: float = 0.0
    """Bytes per MLP-width scalar beyond the activation's input and output, where it is unfused."""
    rope_saved_bytes: float = 0.0
    """Bytes per query and key scalar, where the rotation is unfused and keeps its input."""
    logits_bytes: float = 8.0
    """Bytes per token and vocabulary entry at the peak of the loss, gradient included."""
    vocab_parallel_loss: bool = True
    """The loss runs on logits sharded by tensor-parallel; else they are gathered first."""

    scatters_sends: bool = False
    """Tensor-parallel ranks that hold the same hidden states send a part of them each to the next
    stage, whose ranks gather them over NVLink."""
    overlaps_p2p: bool = True
    """Its pipeline's sends and receives run under other micro-batches' work."""
    overlaps_tp: bool = False
    """Its runs pipeline tensor-parallel collectives with their GEMMs unless a flag says not to."""
    ep_deduplicates: bool = True
    """A token crosses to another NVLink domain once, however many experts it meets there."""
    dispatch_bytes: float = 2.0
    """Bytes per scalar that is sent to an expert, or back as its gradient: 1 where it is sent in
    8 bits.  What an expert returns is sent in 16."""
    overlaps_ep: bool = False
    """Its runs hide exchanges of experts under another micro-batch's compute where the
    exchange leaves the NVLink domain, or where experts are fused."""
    fused_expert_formats: tuple[str, ...] = ()
    """Formats in which one kernel multiplies, activates and quantizes for all experts, and a
    graph of the whole step leaves nothing to the host."""
    partition: Partition = "even"
    """How layers are assigned to stages where the strategy does not say."""
    communicators: float = 1.0
    """Communicators for each kind of group."""
    memory_figure: MemoryFigure = "allocated"
    """What the framework's logs call peak memory: tensors, the allocator's pool, or all of it."""
    logs_first_rank: bool = False
    """The log shows pipeline rank 0, not the fullest one."""
    expert_tensor_parallel_default: Literal["tp", "one"] = "tp"
    """Expert tensor parallelism that a launcher takes where the layout does not say."""
    source: str = ""

    def __post_init__(self) -> None:
        require_not_negative(
            f"framework {self.name}",
            weights_bytes=self.weights_bytes,
            grads_bytes=self.grads_bytes,
            working_grads_bytes=self.working_grads_bytes,
            unsharded_bucket_bytes=self.unsharded_bucket_bytes,
            update_gather_bytes=self.update_gather_bytes,
            update_gather_parameters=self.update_gather_parameters,
            update_shard_bytes=self.update_shard_bytes,
            gathered_buffers=self.gathered_buffers,
            communicators=self.communicators,
            held_buffers=self.held_buffers,
            logits_bytes=self.logits_bytes,
        )
        if self.partition not in PARTITIONS:
            raise SpecError(
                f"framework {self.name}.partition is unknown: {self.partition!r}",
                hint=f"known: {', '.join(PARTITIONS)}",
            )
