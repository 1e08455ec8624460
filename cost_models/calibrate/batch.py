"""Many measured runs, of any models and machines, counted once and priced together.

A fit changes constants thousands of times and the runs never: :class:`RunBatch` keeps
their :class:`~cost_models.counting.work.Work` and memory parts, joined over all runs and over the
settings that a run leaves open.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cost_models.calibrate.calibration import Calibration, levels_of
from cost_models.calibrate.runs import Run
from cost_models.counting.work import Work, concatenate, step_work
from cost_models.equations.constants import Constants
from cost_models.equations.memory import RankMemory, memory_parts, memory_terms
from cost_models.equations.step import price
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.units import Floats, Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class RunBatch:
    """Runs with the candidates of each; columns have shape (n_candidates,)."""

    runs: list[Run]
    strategies: Strategies
    owner: Ints
    """Index of the run that each candidate belongs to."""
    work: Work
    memory: list[RankMemory]
    """One per representative pipeline rank, shorter lists padded with their last."""
    usable_bytes: Floats

    @property
    def first_rank(self) -> NDArray[np.bool_]:
        """True where the framework's log shows pipeline rank 0 alone."""
        return np.array([self.runs[o].workload.framework.logs_first_rank for o in self.owner])

    def take(self, indices: Ints) -> "RunBatch":
        """Some of the candidates, with their owners renumbered by ``runs`` order kept."""
        return RunBatch(
            runs=self.runs,
            strategies=self.strategies.take(indices),
            owner=self.owner[indices],
            work=_take(self.work, indices),
            memory=[_take(part, indices) for part in self.memory],
            usable_bytes=self.usable_bytes[indices],
        )


def _take(value: Any, indices: Ints) -> Any:
    if isinstance(value, tuple):
        return tuple(_take(v, indices) for v in value)
    if isinstance(value, np.ndarray):
        return value[..., indices]
    return type(value)(**{f.name: _take(getattr(value, f.name), indices) for f in fields(value)})


def run_batch(runs: Sequence[Run]) -> RunBatch:
    """Count the work of all candidates of all runs."""
    groups: dict[Any, list[tuple[int, Strategy]]] = {}
    for index, run in enumerate(runs):
        box = run.cluster
        wires = (box.nvlink_bandwidth_Bps, box.nic_bandwidth_Bps, box.nvlink_domain)
        machine = (id(box.gpu), box.n_gpus, box.gpus_per_node, *wires)
        key = (run.model, machine, run.workload)
        groups.setdefault(key, []).extend((index, s) for s in run.candidates())
    works, memories, columns, owners, usable, sizes = [], [], [], [], [], []
    for members in groups.values():
        run = runs[members[0][0]]
        strategies = Strategies.of([s for _, s in members])
        works.append(step_work(run.model, run.cluster, run.workload, strategies))
        memories.append(memory_parts(run.model, run.workload, strategies))
        columns.append(strategies)
        owners.append([index for index, _ in members])
        usable.append(np.full(len(members), run.cluster.usable_memory_bytes))
        sizes.append(len(members))
    n_stages = max(len(parts) for parts in memories)
    padded = [parts + [parts[-1]] * (n_stages - len(parts)) for parts in memories]
    batch = RunBatch(
        runs=list(runs),
        strategies=Strategies.concatenate(columns),
        owner=np.concatenate([np.asarray(o, dtype=np.int64) for o in owners]),
        work=concatenate(works, sizes, n_stages),
        memory=[concatenate([p[i] for p in padded], sizes, 1) for i in range(n_stages)],
        usable_bytes=np.concatenate(usable),
    )
    return batch.take(np.argsort(batch.owner, kind="stable"))


def batch_constants(batch: RunBatch, calibration: Calibration) -> Constants:
    """The calibrated constants of every candidate, arrays of shape (n_candidates,)."""
    levels = [levels_of(run.cluster.gpu, run.workload.framework) for run in batch.runs]
    distinct = list({tuple(level.values()): level for level in levels}.values())
    place = {tuple(level.values()): i for i, level in enumerate(distinct)}
    index = np.array([place[tuple(level.values())] for level in levels])[batch.owner]
    table = calibration.values_for(distinct)
    return Constants(**{name: values[index] for name, values in table.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchCost:
    """Predictions per candidate, shape (n_candidates,)."""

    step_time_s: Floats
    memory_bytes: Floats
    """Reserved memory of the fullest rank: what runs out."""
    reported_bytes: Floats
    """What the framework's log would print: of the first rank, reserved or allocated."""


def batch_memory(batch: RunBatch, c: Constants) -> tuple[Floats, Floats]:
    """(fullest rank's reserved bytes, bytes as the framework's log reports them)."""
    figures = [batch.runs[o].workload.framework.memory_figure for o in batch.owner]
    pooled = np.array([f != "allocated" for f in figures])
    device = np.array([f == "device" for f in figures])
    totals, reported = [], []
    for part in batch.memory:
        terms = memory_terms(part, c)
        tensors = sum(terms[name] for name in
                      ("weights", "gradients", "optimizer", "activations", "logits"))  # fmt: skip
        total = tensors + terms["communication_buffers"] + terms["framework"]
        totals.append(total)
        slack = terms["framework"] - c.framework_bytes
        shown = np.where(pooled, tensors + slack, tensors)
        reported.append(np.where(device, total, shown))
    every = np.max(reported, axis=0)
    return np.max(totals, axis=0), np.asarray(np.where(batch.first_rank, reported[0], every))


def batch_cost(batch: RunBatch, c: Constants) -> BatchCost:
    """Price every candidate with ``c``, whose fields may be arrays per candidate."""
    time = price(batch.work, batch.strategies, c, breakdown=False)
    fullest, reported = batch_memory(batch, c)
    return BatchCost(step_time_s=time.total_s, memory_bytes=fullest, reported_bytes=reported)


def cheapest(batch: RunBatch, cost: BatchCost, usable: Floats) -> Ints:
    """Index of each run's fastest candidate that fits; of the smallest where none does."""
    fits = cost.memory_bytes <= usable
    worst = np.where(fits, cost.step_time_s, 1e12 + cost.memory_bytes)
    order = np.lexsort((np.arange(len(worst)), worst, batch.owner))
    first = np.unique(batch.owner[order], return_index=True)[1]
    return order[first]
