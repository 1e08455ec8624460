"""Rules on layers, stages, schedules and micro-batches."""

import numpy as np

from cost_models.specs.strategy import Schedule, Strategies, Strategy
from cost_models.specs.units import Ints
from search.rules.rule import Mask, Problem, Rule, only

STAGED_SCHEDULES = (Schedule.ZB_1P, Schedule.ZB_2P, Schedule.ZB_V, Schedule.DUALPIPE)
"""Meaningless without a pipeline, in any launcher."""


def micro_batches(problem: Problem, s: Strategies) -> Ints:
    """Micro-batches of one pipeline in one step, rounded down where the batch does not divide."""
    return np.asarray(problem.workload.global_batch_size // (s.micro_batch_size * s.dp))


def _one_micro_batches(problem: Problem, s: Strategy) -> int:
    return problem.workload.global_batch_size // (s.micro_batch_size * s.dp)


def layer_counts(problem: Problem) -> tuple[int, ...]:
    """Numbers of which pp x vpp must divide one: layers, and with embedding, head or both."""
    layers = problem.model.n_layers
    if problem.workload.framework.partition == "embedding_and_head_as_layers":
        return (layers + 2,)
    return (layers, layers + 1, layers + 2)


def _layers_divide(problem: Problem, s: Strategies) -> Mask:
    if problem.uneven_stages or problem.workload.framework.partition == "parameter_weight":
        return np.asarray(np.True_)
    chunks = s.pp * s.vpp
    even = np.zeros(chunks.shape, dtype=np.bool_)
    for layers in layer_counts(problem):
        even |= layers % chunks == 0
    if s.stage_layers is not None:
        even = even | s.stage_layers.any(axis=0)
    return np.asarray(even)


def _stage_layers_add_up(problem: Problem, s: Strategies) -> Mask:
    if s.stage_layers is None:
        return np.asarray(np.True_)
    given = s.stage_layers.any(axis=0)
    last = np.where(s.stage_layers > 0, np.arange(1, len(s.stage_layers) + 1)[:, None], 0)
    fits = last.max(axis=0) <= s.pp * s.vpp
    return np.asarray(~given | (fits & (s.stage_layers.sum(axis=0) == problem.model.n_layers)))


def _interleaves(s: Strategies) -> Mask:
    return np.asarray((s.schedule == Schedule.INTERLEAVED) & (s.pp > 1))


def _in_groups(problem: Problem, s: Strategies) -> Mask:
    count = micro_batches(problem, s)
    return np.asarray(~_interleaves(s) | ((count >= s.pp) & (count % s.pp == 0)))


def _in_rounds(problem: Problem, s: Strategies) -> Mask:
    count = micro_batches(problem, s)
    return np.asarray(~_interleaves(s) | (count % np.maximum(count // s.pp, 1) == 0))


def _two_ways(problem: Problem, s: Strategies) -> Mask:
    count = micro_batches(problem, s)
    both = (s.pp % 2 == 0) & (count % 2 == 0) & (count >= 2 * s.pp)
    return np.asarray((s.schedule != Schedule.DUALPIPE) | both)


def _why_count(problem: Problem, s: Strategy) -> str:
    return (
        f"{_one_micro_batches(problem, s)} micro-batches (global batch "
        f"{problem.workload.global_batch_size} / dp {s.dp} / micro_batch_size "
        f"{s.micro_batch_size}) with pipeline_parallel {s.pp}"
    )


PIPELINE_RULES = (
    Rule(
        name="stages_have_layers",
        sentence="Every chunk of every pipeline rank has a layer.",
        reads=("pp", "vpp"),
        holds=lambda p, s: s.pp * s.vpp <= p.model.n_layers,
        why=lambda p, s: (
            f"pipeline_parallel {s.pp} x virtual {s.vpp} = {s.pp * s.vpp} chunks, "
            f"but there are {p.model.n_layers} layers"
        ),
    ),
    Rule(
        name="layers_divide_stages",
        sentence="Layers, embedding and head counted or not, divide evenly among chunks.",
        reads=("pp", "vpp"),
        holds=_layers_divide,
        why=lambda p, s: (
            f"layers {' or '.join(str(n) for n in layer_counts(p))} is not divisible by "
            f"pipeline_parallel {s.pp} x virtual {s.vpp} = {s.pp * s.vpp}"
        ),
        launchers=only("megatron"),
    ),
    Rule(
        name="layers_divide_stages_exactly",
        sentence="Layers divide evenly among chunks; embedding and head do not count.",
        reads=("pp", "vpp"),
        holds=lambda p, s: p.model.n_layers % (s.pp * s.vpp) == 0,
        why=lambda p, s: (
            f"layers {p.model.n_layers} is not divisible by "
            f"pipeline_parallel {s.pp} x virtual {s.vpp} = {s.pp * s.vpp}"
        ),
        launchers=only("maxtext"),
    ),
    Rule(
        name="stage_layers_add_up",
        sentence="Layers given stage by stage are as many as the model's.",
        reads=("pp", "vpp"),
        holds=_stage_layers_add_up,
        why=lambda p, s: (
            f"stage_layers has {len(s.stage_layers or ())} chunks with {sum(s.stage_layers or ())} "
            f"layers; there are {s.pp * s.vpp} chunks and {p.model.n_layers} layers"
        ),
    ),
    Rule(
        name="vpp_needs_stages",
        sentence="Virtual pipeline needs a pipeline.",
        reads=("pp", "vpp"),
        holds=lambda p, s: (s.vpp == 1) | (s.pp > 1),
        why=lambda p, s: f"virtual pipeline {s.vpp} with pipeline_parallel {s.pp}",
    ),
    Rule(
        name="schedule_needs_stages",
        sentence="Zero-bubble and bidirectional schedules need a pipeline.",
        reads=("pp", "schedule"),
        holds=lambda p, s: ~np.isin(s.schedule, STAGED_SCHEDULES) | (s.pp > 1),
        why=lambda p, s: f"schedule {s.schedule.label} with pipeline_parallel {s.pp}",
    ),
    Rule(
        name="interleaving_needs_chunks",
        sentence="The interleaved schedule needs two chunks on each pipeline rank.",
        reads=("vpp", "schedule"),
        holds=lambda p, s: (s.schedule != Schedule.INTERLEAVED) | (s.vpp > 1),
        why=lambda p, s: f"schedule interleaved with virtual pipeline {s.vpp}",
    ),
    Rule(
        name="chunks_need_interleaving",
        sentence="Only interleaved and V-shaped schedules have several chunks on a pipeline rank.",
        reads=("vpp", "schedule"),
        holds=lambda p, s: (
            (s.vpp == 1) | (s.schedule == Schedule.INTERLEAVED) | (s.schedule == Schedule.ZB_V)
        ),
        why=lambda p, s: f"schedule {s.schedule.label} with virtual pipeline {s.vpp}",
    ),
    Rule(
        name="zb_v_has_two_chunks",
        sentence="The V-shaped schedule has exactly two chunks on each pipeline rank.",
        reads=("vpp", "schedule"),
        holds=lambda p, s: (s.schedule != Schedule.ZB_V) | (s.vpp == 2),
        why=lambda p, s: f"schedule zb-v with virtual pipeline {s.vpp}, not 2",
    ),
    Rule(
        name="chunks_need_p2p_overlap",
        sentence="Without p2p overlap, virtual pipeline needs three pipeline ranks.",
        reads=("pp", "vpp", "overlap_p2p"),
        holds=lambda p, s: (s.vpp == 1) | s.overlap_p2p | (s.pp > 2),
        why=lambda p, s: (
            f"virtual pipeline {s.vpp} on pipeline_parallel {s.pp} with overlap_p2p off"
        ),
        launchers=only("megatron"),
    ),
    Rule(
        name="batch_divides",
        sentence="The global batch is whole micro-batches on every data-parallel rank.",
        reads=("dp", "micro_batch_size"),
        holds=lambda p, s: p.workload.global_batch_size % (s.micro_batch_size * s.dp) == 0,
        why=lambda p, s: (
            f"global batch {p.workload.global_batch_size} is not divisible by micro_batch_size "
            f"{s.micro_batch_size} x dp {s.dp} = {s.micro_batch_size * s.dp}"
        ),
    ),
    Rule(
        name="interleaving_groups_micro_batches",
        sentence="Interleaved micro-batches come in whole groups of pp.",
        reads=("pp", "dp", "schedule", "micro_batch_size"),
        holds=_in_groups,
        why=lambda p, s: f"{_why_count(p, s)}: interleaving needs a multiple",
        launchers=only("megatron"),
    ),
    Rule(
        name="interleaving_rounds_micro_batches",
        sentence="Interleaved micro-batches come in equal rounds of at least pp.",
        reads=("pp", "dp", "schedule", "micro_batch_size"),
        holds=_in_rounds,
        why=lambda p, s: f"{_why_count(p, s)}: interleaving needs equal rounds",
        launchers=only("torchtitan"),
    ),
    Rule(
        name="interleaving_fills_stages",
        sentence="Interleaving needs at least as many micro-batches as pipeline ranks.",
        reads=("pp", "dp", "schedule", "micro_batch_size"),
        holds=lambda p, s: ~_interleaves(s) | (micro_batches(p, s) >= s.pp),
        why=lambda p, s: f"{_why_count(p, s)}: interleaving needs as many",
        launchers=only("any"),
    ),
    Rule(
        name="micro_batches_divide_stages",
        sentence="Micro-batches are a multiple of the pipeline ranks.",
        reads=("pp", "dp", "micro_batch_size"),
        holds=lambda p, s: micro_batches(p, s) % s.pp == 0,
        why=lambda p, s: f"{_why_count(p, s)}: not a multiple",
        launchers=only("maxtext"),
    ),
    Rule(
        name="micro_batches_fill_stages",
        sentence="There are at least as many micro-batches as pipeline ranks.",
        reads=("pp", "dp", "micro_batch_size"),
        holds=lambda p, s: micro_batches(p, s) >= s.pp,
        why=lambda p, s: f"{_why_count(p, s)}: too few",
        launchers=only("torchtitan"),
    ),
    Rule(
        name="dualpipe_runs_both_ways",
        sentence="DualPipe needs even pipeline ranks and twice as many micro-batches, also even.",
        reads=("pp", "dp", "schedule", "micro_batch_size"),
        holds=_two_ways,
        why=lambda p, s: f"{_why_count(p, s)}: dualpipe needs both even, and 2 x pp of the former",
    ),
    Rule(
        name="tied_embeddings_need_one_stage",
        sentence="Embedding and head share weights only where they share a stage.",
        reads=("pp",),
        holds=lambda p, s: (s.pp == 1) | (not p.model.tied_embeddings),
        why=lambda p, s: f"the embeddings are tied and pipeline_parallel is {s.pp}",
        launchers=only("torchtitan"),
    ),
)
