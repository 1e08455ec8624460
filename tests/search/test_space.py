"""Spaces say what they hold, and grids list every legal strategy exactly once."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import (
    ContextParallel,
    Order,
    Precision,
    Recompute,
    Schedule,
    Sharding,
    Strategies,
    Strategy,
)
from search.rules import LAUNCHERS, LAYOUT_AXES, Problem, broken_rules, rules_for
from search.space.axes import KNOB_AXES
from search.space.canonical import canonical, canonical_strategy
from search.space.space import Space, divisors
from search.sweep.census import legal_of, take_census
from search.sweep.layouts import grow_layouts
from tests.search.brute_force import listed
from tests.search.small_problems import dense, moe, problem


def test_text_narrows_axes() -> None:
    """Lists, ranges, labels, switches and shares as they stand on a command line."""
    space = Space.core(problem(gpus=16)).narrowed(
        {
            "tp": "4,2",
            "pp": "1-8",
            "micro-batch-size": "1-3",
            "sharding": "none,zero1",
            "recompute": "none,full,core_attn+layernorm",
            "recompute_layers": "all,2,50%",
            "sequence_parallel": "on,off",
            "optimizer_offload": "0,50%,1",
            "schedule": "1f1b,ZB-V",
            "cp_comm": "a2a-p2p",
        }
    )
    assert space.axes["tp"] == (4, 2)
    assert space.axes["pp"] == (1, 2, 4, 8)
    assert space.axes["micro_batch_size"] == (1, 2)
    assert space.axes["sharding"] == (Sharding.NONE, Sharding.ZERO1)
    assert space.axes["recompute"][2] == Recompute.CORE_ATTN | Recompute.LAYERNORM
    assert space.axes["recompute_layers"] == (0, 2, 0.5)
    assert space.axes["sequence_parallel"] == (True, False)
    assert space.axes["optimizer_offload"] == (0.0, 0.5, 1.0)
    assert space.axes["schedule"] == (Schedule._1F1B, Schedule.ZB_V)
    assert space.axes["cp_comm"] == (ContextParallel.A2A_P2P,)


@pytest.mark.parametrize(
    ("axis", "text", "message", "hint"),
    [
        ("tp", "four", "tp must be whole numbers, got 'four'", "write 8, 4,8 or 1-16"),
        ("tp", "0", "tp must be >= 1, got 0", None),
        ("tp", "4,,8", "tp has an empty value in '4,,8'", None),
        ("tp", "8-4", "tp range '8-4' runs backwards", "write 4-8"),
        ("tp", "4-5", "tp 4-5 holds no candidate", "candidates: 1, 2, 3, 6"),
        ("tp", "4", "tp 4 does not divide 6 GPUs", "divisors of 6: 1, 2, 3, 6"),
        ("tpp", "4", "unknown axis 'tpp'", "did you mean 'tp'?"),
        ("sharding", "zero4", "unknown sharding 'zero4'", "did you mean"),
        ("recompute", "attention", "unknown recompute 'attention'", "known: none"),
        ("sequence_parallel", "yes", "sequence_parallel must be on or off", None),
        ("optimizer_offload", "150%", "must lie between 0 and 1, got 150%", None),
        ("optimizer_offload", "half", "optimizer_offload must be shares", "write 0.5"),
    ],
)
def test_bad_text_is_answered(axis: str, text: str, message: str, hint: str | None) -> None:
    """The message names axis and value; the hint says what would be right."""
    with pytest.raises(SpecError) as caught:
        Space.full(problem(gpus=6)).narrowed({axis: text})
    assert message in str(caught.value)
    if hint is not None:
        assert hint in str(caught.value.hint)


def test_an_axis_needs_a_value() -> None:
    """A space with an empty axis is refused."""
    with pytest.raises(SpecError, match=r"space\.tp has no values"):
        Space.core(problem()).with_(tp=())


@pytest.mark.parametrize("gpus", [1, 7, 96, 512, 16384])
@pytest.mark.parametrize("launcher", list(LAUNCHERS))
def test_presets_exist_for_any_world_and_launcher(gpus: int, launcher: str) -> None:
    """Core lies inside full, and both have values on every axis."""
    p = problem(moe(), gpus=gpus, launcher=launcher)
    core, full = Space.core(p), Space.full(p)
    assert 0 < core.size <= full.size
    for axis in (*LAYOUT_AXES, *KNOB_AXES):
        if axis not in ("dp_shard", "recompute_layers"):
            assert set(core.axes[axis]) <= set(full.axes[axis]), axis


def test_core_follows_the_problem() -> None:
    """Context parallel only for long sequences, expert parallel only with experts."""
    short, long = problem(), problem(sequence=32768)
    assert Space.core(short).axes["cp"] == (1,)
    assert Space.core(long).axes["cp"] == (1, 2, 4, 8)
    assert Space.core(short).axes["ep"] == (1,)
    assert Space.core(problem(moe())).axes["ep"] == (1, 2, 4)
    assert Space.core(short, Precision.FP8).axes["precision"] == (Precision.FP8,)
    assert Recompute.ACTIVATION not in Space.full(short).axes["recompute"]


STRATEGIES = st.builds(
    Strategy,
    dp=st.sampled_from([1, 2, 4]),
    tp=st.sampled_from([1, 2]),
    pp=st.sampled_from([1, 2, 4]),
    cp=st.sampled_from([1, 2]),
    ep=st.sampled_from([1, 2]),
    vpp=st.sampled_from([1, 2]),
    schedule=st.sampled_from(Schedule),
    sequence_parallel=st.booleans(),
    sharding=st.sampled_from(Sharding),
    dp_shard=st.sampled_from([1, 2, 4]),
    reshard_after_forward=st.booleans(),
    recompute=st.sampled_from([Recompute.NONE, Recompute.CORE_ATTN, Recompute.FULL]),
    recompute_layers=st.sampled_from([0, 1, 2]),
    cp_comm=st.sampled_from(ContextParallel),
    overlap_grad_reduce=st.booleans(),
    overlap_param_gather=st.booleans(),
    overlap_tp=st.booleans(),
    overlap_ep=st.booleans(),
    overlap_p2p=st.booleans(),
    order=st.sampled_from(Order),
)


@settings(deadline=None)
@given(STRATEGIES, st.booleans())
def test_canonical_spelling_is_stable(strategy: Strategy, moe: bool) -> None:
    """Spelling twice changes nothing more, and layouts keep their degrees."""
    once = canonical_strategy(strategy, moe=moe)
    assert canonical_strategy(once, moe=moe) == once
    for name in ("dp", "tp", "pp", "cp", "ep", "etp", "vpp", "micro_batch_size", "recompute"):
        assert getattr(once, name) == getattr(strategy, name)


@settings(deadline=None)
@given(STRATEGIES)
def test_knobs_without_effect_do_not_distinguish(strategy: Strategy) -> None:
    """One rank in a dimension makes that dimension's knobs irrelevant."""
    plain = strategy.with_(tp=1, cp=1, pp=1, dp=1, vpp=1, ep=1)
    other = plain.with_(
        sequence_parallel=not plain.sequence_parallel,
        overlap_tp=not plain.overlap_tp,
        overlap_ep=not plain.overlap_ep,
        overlap_p2p=not plain.overlap_p2p,
        overlap_grad_reduce=not plain.overlap_grad_reduce,
        cp_comm=ContextParallel.A2A,
        order=Order.TP_CP_EP_PP_DP,
        schedule=Schedule.GPIPE,
    )
    assert canonical_strategy(plain, moe=False) == canonical_strategy(other, moe=False)


@settings(deadline=None)
@given(st.lists(STRATEGIES, min_size=1, max_size=5))
def test_a_batch_is_spelled_as_its_rows(rows: list[Strategy]) -> None:
    """One call spells many strategies."""
    batch = canonical(Strategies.of(rows), moe=True).rows()
    assert batch == [canonical_strategy(row, moe=True) for row in rows]


def test_interleaving_follows_the_chunks() -> None:
    """1F1B with chunks is interleaved; interleaved without is 1F1B; zb-v stays."""
    chunked = Strategy(pp=2, vpp=2)
    assert canonical_strategy(chunked, moe=False).schedule == Schedule.INTERLEAVED
    plain = Strategy(pp=2, schedule=Schedule.INTERLEAVED)
    assert canonical_strategy(plain, moe=False).schedule == Schedule._1F1B
    v_shaped = Strategy(pp=2, vpp=2, schedule=Schedule.ZB_V)
    assert canonical_strategy(v_shaped, moe=False).schedule == Schedule.ZB_V


def _small_space(p: Problem) -> Space:
    """A few values on every axis that can matter."""
    return Space.full(p).with_(
        tp=(1, 2),
        pp=(1, 2),
        cp=(1, 2),
        dp=(1, 2, 4),
        ep=(1, 2) if p.model.is_moe else (1,),
        etp=(1,),
        vpp=(1, 2),
        micro_batch_size=(1, 2),
        schedule=(Schedule._1F1B, Schedule.INTERLEAVED, Schedule.ZB_V),
        sharding=(Sharding.NONE, Sharding.ZERO1, Sharding.FSDP, Sharding.HSDP),
        dp_shard=(2,),
        reshard_after_forward=(True, False),
        recompute=(Recompute.NONE, Recompute.FULL),
        recompute_layers=(0, 2),
        sequence_parallel=(False, True),
        cp_comm=(ContextParallel.P2P, ContextParallel.A2A),
        optimizer_offload=(0.0, 1.0),
        activation_offload=(0.0,),
        overlap_grad_reduce=(True,),
        overlap_param_gather=(True, False),
        overlap_tp=(False,),
        overlap_ep=(False, True),
        overlap_p2p=(True, False),
        order=(Order.TP_CP_EP_DP_PP, Order.TP_CP_EP_PP_DP),
    )


def _table(s: Strategies, mask: Any) -> Any:
    """The strategies under a mask as rows of numbers."""
    flat = s.take(mask)
    return np.stack([flat.columns[name] for name in (*LAYOUT_AXES, *KNOB_AXES)], axis=1)


def _product(space: Space, p: Problem, layouts: Strategies) -> Any:
    """Canonical spellings of all raw knobs on legal layouts that break no rule, as rows."""
    knobs = list(product(*(space.axes[name] for name in KNOB_AXES)))
    columns: dict[str, Any] = {
        name: np.array([knob[i] for knob in knobs])[None, :] for i, name in enumerate(KNOB_AXES)
    }
    for name in LAYOUT_AXES:
        columns[name] = layouts.columns[name][:, None]
    spelled = canonical(Strategies(**columns), moe=space.moe)
    largest = -(-p.model.n_layers // spelled.pp)
    whole = {**spelled.columns, "recompute_layers": spelled.recompute_layers % largest}
    legal = np.ones(spelled.shape, dtype=np.bool_)
    for rule in rules_for(p.launcher.name):
        legal &= rule.mask(p, spelled)
    return np.unique(_table(Strategies(**whole), legal), axis=0)


@pytest.mark.parametrize("launcher", ["megatron", "any", "torchtitan"])
@pytest.mark.parametrize("model", [dense(n_layers=4), moe(n_layers=4, moe_layers=(1, 2, 3))])
def test_grids_and_the_plain_list_hold_every_legal_strategy_once(launcher: str, model: Any) -> None:
    """Both hold the canonical legal strategies of the raw product, none twice."""
    p = problem(model, gpus=4, launcher=launcher)
    space, rules = _small_space(p), rules_for(launcher)
    layouts, _ = grow_layouts(space, p, rules)
    some = layouts.take(np.arange(0, len(layouts), 7))
    plain = np.concatenate([_table(s, legal) for s, legal in listed(space, p, some, rules)])
    expected = _product(space, p, some)
    assert len(plain) == len(expected) > 80
    assert np.array_equal(np.unique(plain, axis=0), expected)
    found = legal_of(take_census(p, space))
    rows = _table(found, np.arange(len(found)))
    n_axes = len(LAYOUT_AXES)
    kept = np.isin(_keys(rows[:, :n_axes]), _keys(expected[:, :n_axes]))
    assert kept.sum() == len(expected)
    assert np.array_equal(np.unique(rows[kept], axis=0), expected)
    assert not any(broken_rules(p, row) for row in found.rows()[:10])


def _keys(rows: Any) -> Any:
    """One text for each row of numbers."""
    return np.array([" ".join(map(str, row)) for row in rows.astype(np.int64).tolist()])


@given(st.integers(1, 20000))
def test_divisors_divide(number: int) -> None:
    """Ascending, complete, and none twice."""
    assert divisors(number) == [d for d in range(1, number + 1) if number % d == 0]
