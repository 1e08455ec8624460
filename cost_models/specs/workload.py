"""What is trained at each step, and by which software."""

from dataclasses import dataclass

from cost_models.specs.errors import SpecError, require_positive
from cost_models.specs.framework import Framework, Optimizer


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """One optimizer step: its batch, and the recipe of the software that runs it."""

    global_batch_size: int
    """Sequences in one optimizer step, over all GPUs."""
    sequence_length: int
    """Tokens in one sequence."""
    framework: Framework
    optimizer: Optimizer
    frozen_weights: bool = False
    """LoRA and its like: the model's own weights have no gradients and no optimizer state."""

    drops_tokens: bool = False
    """Tokens over an expert's capacity are dropped, so that every expert's size is fixed."""
    balanced_experts: bool = False
    """Every expert receives equally many tokens: a forced router, or tokens over its capacity
    dropped, as in benchmarks."""

    def __post_init__(self) -> None:
        require_positive(
            "workload",
            global_batch_size=self.global_batch_size,
            sequence_length=self.sequence_length,
        )
        for name in ("global_batch_size", "sequence_length"):
            value = getattr(self, name)
            if int(value) != value:
                raise SpecError(f"workload.{name} must be a whole number, got {value}")

    @property
    def tokens_per_step(self) -> int:
        """Tokens that one optimizer step consumes."""
        return self.global_batch_size * self.sequence_length
