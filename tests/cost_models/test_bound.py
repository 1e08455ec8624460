"""The lower bound is below every price that it is a bound of, and not far below."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.calibrate.calibration import prior_constants
from cost_models.equations.bound import step_bound_s
from cost_models.equations.step import step_time_s
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Recompute, Strategies, Strategy
from cost_models.specs.workload import Workload
from tests.cost_models.any_layout import MODELS, layouts

Job = Callable[..., Workload]

MORE = st.fixed_dictionaries(
    {
        "recompute": st.sampled_from([Recompute.NONE, *Recompute]),
        "activation_offload": st.sampled_from([0.0, 0.5, 1.0]),
        "overlap_p2p": st.booleans(),
        "overlap_grad_reduce": st.booleans(),
        "overlap_param_gather": st.booleans(),
    }
)
LEAST: dict[str, Any] = {
    "recompute": Recompute.NONE,
    "activation_offload": 0.0,
    "overlap_p2p": True,
    "overlap_grad_reduce": True,
    "overlap_param_gather": True,
}


@settings(max_examples=100)
@given(MODELS, layouts(), MORE)
def test_no_strategy_is_faster_than_the_bound_of_one_with_less_work(
    request: pytest.FixtureRequest,
    workload: Job,
    h100: Gpu,
    name: str,
    layout: Strategy,
    more: dict[str, Any],
) -> None:
    """Whatever is recomputed, offloaded or exposed, the step takes as long as the bound says."""
    model = request.getfixturevalue(name)
    cluster = Cluster.of(h100, layout.world_size)
    least = layout.with_(**LEAST)
    bound = step_bound_s(model, cluster, workload(), Strategies.of(least), prior_constants())
    priced = Strategies.of([least, layout, layout.with_(**more)])
    times = step_time_s(model, cluster, workload(), priced, prior_constants())

    assert 0 < bound.item() <= times.min() * (1 + 1e-12)


@pytest.mark.parametrize("layout", [Strategy(), Strategy(tp=4, sequence_parallel=True)])
def test_the_bound_is_the_price_where_nothing_is_pooled(
    dense_model: ModelSpec, workload: Job, h100: Gpu, layout: Strategy
) -> None:
    """Without a pipeline and data-parallel ranks there is nothing that the bound leaves out."""
    cluster, columns = Cluster.of(h100, layout.world_size), Strategies.of(layout)
    bound = step_bound_s(dense_model, cluster, workload(), columns, prior_constants())
    time = step_time_s(dense_model, cluster, workload(), columns, prior_constants())
    assert np.array_equal(bound, time)
