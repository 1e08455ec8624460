"""The exhaustive sweep: every legal strategy of a space, priced or proved beaten.

Layouts are taken class by class in blocks that keep memory flat however large the space.
A first pass prices a thin sample of all layouts with the knobs that engineers try first,
so that the frontier is good before the sweep begins and cuts from its first block on.
Blocks are swept in rounds of a fixed number against the frontier at the round's start:
threads change the speed of an answer and nothing else.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np

from cost_models.equations.constants import Constants
from cost_models.specs.strategy import Recompute, Strategies
from cost_models.specs.units import Ints
from search.frontier.pareto import Incumbents, near_pareto
from search.result import Certificate, Counts
from search.rules import Mask, Problem, rules_for
from search.space.space import Space
from search.sweep.branch_and_bound import (
    ENTRIES,
    LAYOUT_NODE,
    Found,
    SweepProblem,
    Tally,
    sweep_block,
)
from search.sweep.census import Census, take_census
from search.sweep.knob_axes import LAYOUT, KnobAxis, grid
from search.sweep.legality import LegalGrid, alike
from search.sweep.memory_halves import MEMORY, SAME_ACTIVATIONS

Block = tuple[LegalGrid, Ints]
"""A grid and some of its layouts, as positions."""
Progress = Callable[[float], None]
"""Called now and then with the share of the work that is done, from 0 to 1."""

FIRST = 16
"""One layout in so many is swept before the others."""
ROUND = 4
"""Blocks swept against the same frontier."""
SCOUTS = 1000
"""Layouts of the first pass, about."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: flat columns that hold the frontier, and what was counted."""

    candidates: Strategies
    counts: Counts
    certificate: Certificate


def sweep(
    problem: Problem,
    space: Space,
    constants: Constants,
    *,
    census: Census | None = None,
    threads: int = 2,
    verify_cut: int = 0,
    progress: Progress | None = None,
) -> Swept:
    """The strategies of ``space`` that no other beats in both memory and step time.

    ``verify_cut`` prices about so many random strategies from every block of what was
    cut, and raises RuntimeError should one of them beat the frontier.
    """
    census = census or take_census(problem, space)
    q = SweepProblem(problem, constants)
    incumbents = Incumbents()
    scout(q, census, incumbents)
    tally, cut = sweep_blocks(
        q,
        blocks_of(census.grids),
        incumbents,
        threads=threads,
        verify_cut=verify_cut,
        progress=progress,
    )
    if verify_cut:
        _verify(q, cut, incumbents)
    counts = census.counts(
        fits=tally.fits,
        priced=tally.priced,
        cut_by={
            "floor": tally.cut_layout_nodes,
            "ideal_point": tally.cut_overlap_nodes,
            "step_time_bound": tally.cut_memory_nodes,
        },
    )
    detail = "every legal strategy that fits was priced or cut by a bound"
    return Swept(
        incumbents.strategies, counts, Certificate(complete=True, method="sweep", detail=detail)
    )


def blocks_of(grids: Sequence[LegalGrid]) -> list[Block]:
    """Every grid with some of its rows, about :data:`ENTRIES` entries of its largest array.

    A block takes every n-th group of layouts that keep the same activations, so that it is
    like the whole; the first one of every grid comes before all others and is small,
    for what it finds cuts in the rest.
    """
    placed: list[tuple[float, LegalGrid, Ints]] = []
    for g in grids:
        nodes = prod(axis.size for axis in g.axes if axis.name in LAYOUT_NODE)
        halves = (("sequence_parallel", "precision", "kept"), MEMORY[:3] + MEMORY[4:])
        largest = max(prod(a.size for a in g.axes if a.name in half) for half in halves)
        most = max(1, ENTRIES // max(nodes, largest))
        _, group = alike(g.layouts, SAME_ACTIVATIONS)
        rest = group % FIRST > 0
        count = -(-int(np.count_nonzero(rest)) // most)
        mine = np.where(rest, group // FIRST % max(count, 1) + 1, 0)
        parts = [np.flatnonzero(mine == k) for k in range(count + 1)]
        placed += [(k / (count + 1), g, part) for k, part in enumerate(parts) if len(part)]
    return [(g, part) for _, g, part in sorted(placed, key=lambda one: one[0])]


def sweep_blocks(
    q: SweepProblem,
    blocks: Sequence[Block],
    incumbents: Incumbents,
    *,
    threads: int,
    verify_cut: int = 0,
    progress: Progress | None = None,
) -> tuple[Tally, list[Strategies]]:
    """Sweep the blocks in rounds, each adding to the incumbents; a sample of what was cut."""
    tally, cut = Tally(), []
    total = sum(len(rows) for _, rows in blocks)
    done = 0
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for start in range(0, len(blocks), ROUND):
            some = blocks[start : start + ROUND]

            def work(block: Block) -> Found:
                g, rows = block
                return sweep_block(q, g.rows(rows), incumbents, verify_cut)

            results = pool.map(work, some) if threads > 1 else map(work, some)
            for found in list(results):
                tally.add(found.tally)
                cut += found.cut
                for parts in zip(
                    found.memory_bytes, found.step_time_s, found.strategies, strict=True
                ):
                    incumbents.add(*parts)
            done += sum(len(rows) for _, rows in some)
            if progress is not None:
                progress(done / total)
    return tally, cut


def _first_choices(axis: KnobAxis) -> Mask:
    """What engineers try first on an axis."""
    columns = axis.columns
    keep = np.ones(axis.size, dtype=np.bool_)
    if axis.name == "kept":
        layers = columns["recompute_layers"]
        usual = (Recompute.NONE, Recompute.CORE_ATTN, Recompute.FULL)
        keep = np.isin(columns["recompute"], usual) & (layers.max(axis=1) == 0)
        keep &= columns["activation_offload"] == columns["activation_offload"].min()
    elif axis.name == "sharding":
        keep[:] = False
        keep[np.unique(columns["sharding"], return_index=True)[1]] = True
    elif axis.name in ("sequence_parallel", "overlap_tp", "overlap_p2p"):
        keep = columns[axis.name] == columns[axis.name].max()
    elif axis.name == "order":
        keep[1:] = False
    return keep if keep.any() else np.ones(axis.size, dtype=np.bool_)


def scout(q: SweepProblem, census: Census, incumbents: Incumbents) -> None:
    """Price first choices on a thin sample of the layouts."""
    stride = max(1, census.n_layouts // SCOUTS)
    for whole in census.grids:
        rows = np.zeros(len(whole.layouts), dtype=np.bool_)
        rows[::stride] = True
        first = {axis.name: _first_choices(axis) for axis in whole.axes if axis.size > 1}
        g = whole.only({LAYOUT: rows} | first)
        if not g.count():
            continue
        strategies = grid(g.layouts, g.axes)
        memory = q.bytes(strategies)
        legal = np.broadcast_to(g.mask(tuple(g.sizes)), strategies.shape)
        index = np.flatnonzero(legal & (memory <= q.problem.cluster.usable_memory_bytes))
        if len(index):
            memory, seconds = memory.reshape(-1)[index], q.seconds(strategies, bound=False)
            seconds = seconds.reshape(-1)[index]
            near = near_pareto(memory, seconds)
            incumbents.add(memory[near], seconds[near], strategies.take(index[near]))


def _verify(q: SweepProblem, cut: list[Strategies], incumbents: Incumbents) -> None:
    """Price what was cut: whatever is legal and fits must be beaten."""
    lost = Strategies.concatenate(cut) if cut else Strategies().flat()
    memory, seconds = q.bytes(lost), q.seconds(lost, bound=False)
    legal = memory <= q.problem.cluster.usable_memory_bytes
    for rule in rules_for(q.problem.launcher.name):
        legal = legal & rule.mask(q.problem, lost)
    wrong = np.flatnonzero(legal & ~incumbents.beats(memory, seconds))
    if len(wrong):
        one = lost.row(int(wrong[0]))
        raise RuntimeError(f"{len(wrong)} of {len(lost)} cut strategies are not beaten: {one}")
