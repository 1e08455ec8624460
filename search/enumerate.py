"""The exhaustive sweep: every legal strategy of a space, priced or proved beaten.

Layouts are taken class by class in blocks that keep memory flat however large the space.
A first pass prices a thin sample of all layouts with the knobs that engineers try first,
so that the frontier is good before the sweep begins and cuts from its first block on.
Blocks are swept in rounds of a fixed number against the frontier at the round's start:
threads change the speed of an answer and nothing else.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod

import numpy as np

from cost_models.constants import Constants
from cost_models.strategy import Recompute, Strategies
from search.knob_axes import LAYOUT, Facts, KnobAxis, classes, grid, knob_axes
from search.layouts import grow_layouts
from search.legality import SPELLED_ONCE, LegalGrid, legal_grid
from search.levels import CELLS, ITEM, MEMORY, Found, Question, Tally, sweep_block
from search.pareto import Staircase
from search.result import Certificate, Counts
from search.rules import Mask, Problem, Rule, rules_for
from search.space import Space

Progress = Callable[[float], None]
"""Told now and then which share of the work is done, from 0 to 1."""

ROUND = 4
"""Blocks swept against the same frontier."""
SCOUTS = 2000
"""Layouts of the first pass, about."""


@dataclass(frozen=True, slots=True)
class Swept:
    """What a sweep found: flat columns that hold the frontier, and what was counted."""

    candidates: Strategies
    counts: Counts
    certificate: Certificate


@dataclass(frozen=True, slots=True)
class _Class:
    facts: Facts
    grid: LegalGrid


def sweep(
    problem: Problem,
    space: Space,
    constants: Constants,
    *,
    threads: int = 2,
    verify_cut: int = 0,
    progress: Progress | None = None,
) -> Swept:
    """The strategies of ``space`` that no other beats in both memory and step time.

    ``verify_cut`` prices about so many random strategies from every block of what was
    cut, and raises RuntimeError should one of them beat the frontier.
    """
    rules = rules_for(problem.launcher.name)
    layouts, removed = grow_layouts(space, problem, rules)
    q = Question(problem, constants)
    pruned = {name: count * space.knob_size for name, count in removed.items()}
    members, legal = _members(problem, space, layouts, rules, pruned)
    known = Staircase()
    _scout(q, members, len(layouts), known)
    tally, cut = _rounds(q, members, known, threads, verify_cut, progress)
    if verify_cut:
        _verify(q, rules, cut, known)
    pruned["memory"] = legal - tally.fits
    counts = Counts(
        space=space.size,
        legal=legal,
        fits=tally.fits,
        priced=tally.priced,
        layouts=len(layouts),
        pruned_by={name: count for name, count in pruned.items() if count},
        cut_by_bound=tally.fits - tally.priced,
        cut_by={"ideal_point": tally.cut_items, "step_time_bound": tally.cut_cells},
    )
    detail = f"every legal strategy priced or cut by a bound, {len(layouts)} layouts by numpy"
    return Swept(
        known.strategies, counts, Certificate(complete=True, method="sweep", detail=detail)
    )


def _members(
    problem: Problem,
    space: Space,
    layouts: Strategies,
    rules: tuple[Rule, ...],
    pruned: dict[str, int],
) -> tuple[list[_Class], int]:
    """The classes with their legal grids; adds to ``pruned`` and counts the legal."""
    members = []
    legal = 0
    for facts, rows in classes(space, layouts):
        some = layouts.take(rows)
        axes = knob_axes(space, facts, some, problem.model.n_layers)
        g = legal_grid(problem, some, axes, rules)
        spelled = len(some) * (space.knob_size - prod(axis.size for axis in axes))
        pruned[SPELLED_ONCE] = pruned.get(SPELLED_ONCE, 0) + spelled
        for name, count in g.pruned().items():
            pruned[name] = pruned.get(name, 0) + count
        legal += g.count()
        trimmed = g.trimmed()
        if len(trimmed.layouts):
            members.append(_Class(facts, trimmed))
    return members, legal


def _blocks(members: list[_Class]) -> Iterator[LegalGrid]:
    """Every class in blocks of about :data:`CELLS` entries of its largest array."""
    for member in members:
        g = member.grid
        items = prod(axis.size for axis in g.axes if axis.name in (*ITEM, "optimizer_offload"))
        cells = prod(axis.size for axis in g.axes if axis.name in MEMORY)
        step = max(1, CELLS // max(items, cells))
        for start in range(0, len(g.layouts), step):
            yield g.rows(slice(start, start + step))


def _rounds(
    q: Question,
    members: list[_Class],
    known: Staircase,
    threads: int,
    verify_cut: int,
    progress: Progress | None,
) -> tuple[Tally, list[Strategies]]:
    tally, cut = Tally(), []
    total = sum(len(member.grid.layouts) for member in members)
    done = 0
    blocks = list(_blocks(members))
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        for start in range(0, len(blocks), ROUND):
            some = blocks[start : start + ROUND]

            def work(g: LegalGrid) -> Found:
                return sweep_block(q, g, known, verify_cut)

            results = pool.map(work, some) if threads > 1 else map(work, some)
            for found in list(results):
                tally.add(found.tally)
                cut += found.cut
                for parts in zip(
                    found.memory_bytes, found.step_time_s, found.strategies, strict=True
                ):
                    known.add(*parts)
            done += sum(len(g.layouts) for g in some)
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


def _scout(q: Question, members: list[_Class], n_layouts: int, known: Staircase) -> None:
    """Price first choices on a thin sample of the layouts."""
    stride = max(1, n_layouts // SCOUTS)
    for member in members:
        layouts = member.grid.layouts
        rows = np.zeros(len(layouts), dtype=np.bool_)
        rows[::stride] = True
        first = {axis.name: _first_choices(axis) for axis in member.grid.axes if axis.size > 1}
        g = member.grid.only({LAYOUT: rows} | first)
        if not g.count():
            continue
        strategies = grid(g.layouts, g.axes)
        dims = tuple(g.sizes)
        legal = np.broadcast_to(g.mask(dims), strategies.shape)
        memory = q.bytes(strategies)
        legal = legal & (memory <= q.problem.cluster.usable_memory_bytes)
        index = np.flatnonzero(legal)
        if len(index):
            seconds = q.seconds(strategies, bound=False)
            known.add(memory.reshape(-1)[index], seconds.reshape(-1)[index], strategies.take(index))


def _verify(q: Question, rules: tuple[Rule, ...], cut: list[Strategies], known: Staircase) -> None:
    """Price what was cut: whatever is legal and fits must be beaten."""
    lost = Strategies.concatenate(cut) if cut else Strategies().flat()
    memory, seconds = q.bytes(lost), q.seconds(lost, bound=False)
    legal = memory <= q.problem.cluster.usable_memory_bytes
    for rule in rules:
        legal = legal & rule.mask(q.problem, lost)
    wrong = np.flatnonzero(legal & ~known.beats(memory, seconds))
    if len(wrong):
        one = lost.row(int(wrong[0]))
        raise RuntimeError(f"{len(wrong)} of {len(lost)} cut strategies are not beaten: {one}")
