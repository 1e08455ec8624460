"""From words to specs: models, GPUs and batches by name, with defaults for what is not said."""

from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import Any

from autopar.launchers import dossier
from cost_models.calibrate.calibration import SHIPPED, Calibration, load_calibration
from cost_models.catalog.frameworks import load_framework
from cost_models.catalog.gpus import load_cluster
from cost_models.catalog.models import load_model
from cost_models.catalog.optimizers import load_optimizer
from cost_models.equations.constants import Constants
from cost_models.specs.cluster import Cluster
from cost_models.specs.errors import SpecError
from cost_models.specs.framework import Framework, Optimizer
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Precision
from cost_models.specs.workload import Workload
from search.rules import Problem
from search.space.axes import axis_called
from search.space.space import Space

DEFAULT_SEQUENCE = 8192
DEFAULT_TOKENS = 4 * 1024 * 1024
"""Tokens of one step where nobody says; more where the cluster is large."""
USUAL_FRAMEWORK = "megatron-lm"


def framework_of(launcher: str | None) -> str:
    """The recipe of a launcher's jobs, Megatron-LM's where no launcher is said.

    >>> framework_of("torchtitan"), framework_of(None)
    ('torchtitan', 'megatron-lm')
    """
    return USUAL_FRAMEWORK if launcher is None or launcher == "any" else dossier(launcher).framework


def as_model(model: ModelSpec | str) -> ModelSpec:
    """A model, or the one that a name or path stands for."""
    return model if isinstance(model, ModelSpec) else load_model(model)


def as_cluster(
    cluster: Cluster | str | Path | None, gpu: str | None = None, gpus: int | None = None
) -> Cluster:
    """A cluster, the one in a file, or ``gpus`` of ``gpu`` in its usual box."""
    if isinstance(cluster, Cluster):
        return cluster
    if gpus is not None and gpus < 1:
        raise SpecError(f"gpus must be >= 1, got {gpus}")
    if cluster is not None:
        return load_cluster(cluster, n_gpus=gpus, gpu=gpu)
    return load_cluster(gpu or "h100", n_gpus=gpus)


def default_sequence_length(model: ModelSpec) -> int:
    """8192 tokens, or the model's own limit below that."""
    return min(model.max_sequence_length or DEFAULT_SEQUENCE, DEFAULT_SEQUENCE)


def default_batch(sequence_length: int, gpus: int) -> int:
    """Sequences of about 4 Mi tokens, eight GPUs to a sequence at most.

    A power of two times the odd part of the world size, so that data-parallel ranks of
    any kind divide it.

    >>> default_batch(8192, 512), default_batch(8192, 16384), default_batch(8192, 96)
    (512, 2048, 768)
    """
    wanted = max(ceil(DEFAULT_TOKENS / sequence_length), ceil(gpus / 8))
    batch = gpus // (gpus & -gpus)
    while batch < wanted:
        batch *= 2
    return batch


def global_batch_size(
    sequence_length: int, gpus: int, global_batch: int | None, tokens_per_batch: float | None
) -> int:
    """Sequences of one step, from either way to say it or by default."""
    if global_batch is not None and tokens_per_batch is not None:
        raise SpecError(
            f"global_batch {global_batch} and tokens_per_batch {tokens_per_batch:g} "
            "say the same thing",
            hint="give one of them",
        )
    if global_batch is not None:
        return global_batch
    if tokens_per_batch is None:
        return default_batch(sequence_length, gpus)
    if tokens_per_batch < sequence_length:
        raise SpecError(
            f"tokens_per_batch {tokens_per_batch:g} is less than one sequence of {sequence_length}"
        )
    return round(tokens_per_batch / sequence_length)


def as_framework(framework: Framework | str) -> Framework:
    """A framework, or the one of that name."""
    return framework if isinstance(framework, Framework) else load_framework(framework)


def as_optimizer(optimizer: Optimizer | str) -> Optimizer:
    """An optimizer, or the one of that name."""
    return optimizer if isinstance(optimizer, Optimizer) else load_optimizer(optimizer)


def as_workload(
    model: ModelSpec,
    cluster: Cluster,
    *,
    seq_len: int | None = None,
    global_batch: int | None = None,
    tokens_per_batch: float | None = None,
    optimizer: Optimizer | str = "adamw",
    framework: Framework | str = "megatron-lm",
) -> Workload:
    """The workload that these words describe."""
    length = default_sequence_length(model) if seq_len is None else seq_len
    if length < 1:
        raise SpecError(f"seq_len must be >= 1, got {length}")
    return Workload(
        global_batch_size=global_batch_size(length, cluster.n_gpus, global_batch, tokens_per_batch),
        sequence_length=length,
        framework=as_framework(framework),
        optimizer=as_optimizer(optimizer),
    )


def as_precision(precision: Precision | str | None, cluster: Cluster) -> Precision:
    """A precision, or bf16, or fp16 where the GPU has no bf16."""
    if precision is None:
        known = cluster.gpu.peak_flop_per_s
        return Precision.BF16 if "bf16" in known else Precision.FP16
    return Precision.parse(precision) if isinstance(precision, str) else precision


def as_space(
    space: Space | str, problem: Problem, precision: Precision, fixed: Mapping[str, Any] | None
) -> Space:
    """A space, or a preset of that name, with some axes fixed or narrowed.

    ``fixed`` maps an axis to text (``"4,8"``, ``"1-16"``, ``"none,full"``), to one value
    or to a sequence of values.
    """
    if isinstance(space, str):
        presets = {"core": Space.core, "full": Space.full}
        if space not in presets:
            raise SpecError(f"unknown space {space!r}", hint="known: core, full")
        space = presets[space](problem, precision)
    for name, value in (fixed or {}).items():
        axis = axis_called(name)
        if isinstance(value, str):
            space = space.narrowed({axis: value})
        else:
            listed = value if isinstance(value, (list, tuple, range)) else (value,)
            space = space.with_(**{axis: tuple(listed)})
    return space


def as_calibration(calibration: str | Path | None) -> Calibration:
    """What is known of all constants, shipped or from a file of one's own."""
    return load_calibration(Path(calibration or SHIPPED))


def constants_for(
    cluster: Cluster, framework: Framework, calibration: str | Path | None = None
) -> Constants:
    """The constants of this GPU and framework, shipped or from a file of one's own."""
    return as_calibration(calibration).constants(cluster.gpu, framework)
