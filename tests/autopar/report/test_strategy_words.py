"""What is printed of a strategy leads back to it."""

import click
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autopar.cli.commands.estimate import command
from autopar.cli.options import axis_texts
from autopar.job.strategy import complete_strategy
from autopar.report.strategy_words import changes, flags, layout_words, other_words
from cost_models.specs.strategy import (
    ContextParallel,
    Order,
    Precision,
    Recompute,
    Schedule,
    Sharding,
    Strategy,
)
from search.rules import LAUNCHERS
from search.space.canonical import canonical_strategy

DEGREE = st.sampled_from([1, 2, 4])
SHARE = st.sampled_from([0.0, 0.5, 1.0])
STRATEGIES = st.builds(
    Strategy,
    dp=DEGREE,
    tp=DEGREE,
    pp=DEGREE,
    cp=DEGREE,
    ep=DEGREE,
    etp=DEGREE,
    vpp=DEGREE,
    micro_batch_size=DEGREE,
    schedule=st.sampled_from(Schedule),
    sequence_parallel=st.booleans(),
    sharding=st.sampled_from(Sharding),
    dp_shard=DEGREE,
    reshard_after_forward=st.booleans(),
    recompute=st.sampled_from([Recompute.NONE, Recompute.FULL, Recompute.MLP | Recompute.MOE]),
    recompute_layers=st.sampled_from([0, 3]),
    cp_comm=st.sampled_from(ContextParallel),
    optimizer_offload=SHARE,
    activation_offload=SHARE,
    overlap_grad_reduce=st.booleans(),
    overlap_param_gather=st.booleans(),
    overlap_tp=st.booleans(),
    overlap_ep=st.booleans(),
    overlap_p2p=st.booleans(),
    order=st.sampled_from(Order),
)


def read_back(words: str, gpus: int, *, moe: bool) -> Strategy:
    """The strategy that ``autopar estimate`` makes of these options."""
    context: click.Context = command.make_context("estimate", words.split())
    knobs = {**axis_texts(context.params), "stage_layers": context.params["stage_layers"]}
    return complete_strategy(
        knobs, gpus, launcher=LAUNCHERS["any"], moe=moe, precision=Precision.BF16
    )


@settings(max_examples=200, deadline=None, derandomize=True)
@given(STRATEGIES, st.booleans())
def test_options_lead_back_to_the_strategy(strategy: Strategy, moe: bool) -> None:
    """Whatever a search finds can be typed, and is then the same strategy."""
    found = canonical_strategy(strategy, moe=moe)
    assert read_back(flags(found, moe=moe), found.world_size, moe=moe) == found


def test_changes_name_new_values_and_values_taken_back() -> None:
    """A knob that the other strategy does not set is set to what it has there."""
    before = Strategy(dp=8, recompute=Recompute.FULL, micro_batch_size=4)
    after = Strategy(dp=4, tp=2, sequence_parallel=True, micro_batch_size=4)
    assert changes(before, after) == "--tp 2 --recompute none"


@pytest.mark.parametrize(
    ("strategy", "layout", "other"),
    [
        (Strategy(), "dp1 tp1 pp1", ""),
        (Strategy(dp=2, ep=2, cp=4, cp_comm=ContextParallel.A2A), "dp2 tp1 pp1 cp4 ep2", "cp:a2a"),
        (Strategy(tp=8), "dp1 tp8 pp1", "no-sp"),
        (Strategy(optimizer_offload=0.5), "dp1 tp1 pp1", "opt-offload:50%"),
    ],
)
def test_few_words_for_a_strategy(strategy: Strategy, layout: str, other: str) -> None:
    """Degrees in one word each, and only the knobs that are not as one expects."""
    assert layout_words(strategy) == layout
    assert other_words(strategy) == other
