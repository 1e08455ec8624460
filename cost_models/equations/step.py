"""One training step: where every term meets.

Per micro-batch, pipeline rank r takes t_r = F_r + B_r + W_r, stalls included
(:mod:`cost_models.equations.rank_time`); the slowest rank is the clock, t = max t_r, and what is
paid once a step is its own:

    pipeline   T_p = m t + bubble, by :mod:`cost_models.equations.pipeline` [1]_       (1)
    ranks      sum of t_r = t_first + t_last + (L - l_first - l_last) max t_r / l_r,
               the middle ranks being priced by one of them                            (2)
    filling    of (2) in the bubble, what the host loses in the steady state counts for
               the slowest rank alone                                                  (3)
    once       T_o = exposed gradients + update + offloaded state + c_0 + p_o hidden   (4)
    step       T = (T_p + T_o) (1 + sigma log2(nodes))                                 (5)
    MFU        model FLOPs / (T n f) [2]_                                              (6)

=======  ====================================================  ==========================
symbol   meaning                                               name or module
=======  ====================================================  ==========================
m        micro-batches of one pipeline in one step             ``work.n_micro_batches``
F, B, W  s, forward, gradients of inputs, of weights           ``rank_time``
L, l_r   layers of the model, of rank r                        ``work.model_layers``, ...
c_0      s, once a step, outside everything                    ``step_s``
p_o      s that compute loses per s of hidden communication    ``overlap_price``
sigma    slow-down for each doubling of the nodes              ``straggler``
n, f     GPUs; FLOP/s of the data sheet at their precision     ``gemm_flop_per_s``
=======  ====================================================  ==========================

Terms are seconds of the slowest rank and sum to the step; ``hidden_s`` is the
communication that runs under compute and costs only ``overlap_price`` of itself.  A lower
bound over strategies is :mod:`cost_models.equations.bound`.

References
----------
.. [1] D. Narayanan et al., "Efficient Large-Scale Language Model Training on GPU
   Clusters Using Megatron-LM," SC 2021, section 2.2. arXiv:2104.04473
.. [2] A. Chowdhery et al., "PaLM: Scaling Language Modeling with Pathways," 2022,
   section 4.1 and appendix B. arXiv:2204.02311
"""

from dataclasses import dataclass

import numpy as np

from cost_models.counting.work import Work, step_work
from cost_models.equations.constants import Constants
from cost_models.equations.layer.links import Links, links
from cost_models.equations.memory import MemoryCost, memory_cost
from cost_models.equations.pipeline import pipeline_s
from cost_models.equations.rank_time import RankTime, hop_s, rank_times
from cost_models.equations.state_time import gradients_s, optimizer_s
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats, Ints
from cost_models.specs.workload import Workload

TIME_TERMS = (
    "gemm",
    "attention",
    "memory_bound",
    "recompute",
    "tp_comm",
    "cp_comm",
    "ep_comm",
    "pp_comm",
    "fsdp_comm",
    "dp_comm",
    "bubble",
    "optimizer",
    "offload",
    "launch",
    "overlap_price",
    "straggler",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """Seconds of one step; ``terms`` sum to ``total_s``."""

    total_s: Floats
    terms: dict[str, Floats]
    hidden_s: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Time and memory of every strategy; arrays of the strategies' shape."""

    step_time_s: Floats
    time_terms: dict[str, Floats]
    hidden_s: Floats
    memory: MemoryCost
    tokens_per_s_per_gpu: Floats
    mfu: Floats
    """Model FLOPs over the peak of the strategy's precision; recompute does not count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """The slowest rank: its seconds per micro-batch, and which one it is."""

    rank: Ints
    forward: Floats
    backward: Floats
    weight: Floats
    only_steady: Floats
    """The part that is not lost while the pipeline fills and drains."""

    @property
    def busy(self) -> Floats:
        """The whole micro-batch, t."""
        return np.asarray(self.forward + self.backward + self.weight)

    @property
    def rest(self) -> Floats:
        """All of it after the forward pass."""
        return np.asarray(self.backward + self.weight)

    def of(self, values: Floats) -> Floats:
        """The slowest rank's value; values without an axis of ranks are the same on all."""
        return choose_rank(values, self.rank)

    def least(self, values: Floats) -> Floats:
        """The least value of any rank."""
        return values.min(axis=0) if values.ndim > self.rank.ndim else values


def choose_rank(values: Floats, index: Ints) -> Floats:
    """Row ``index`` of axis 0, entry by entry; values without that axis are all ranks'."""
    if values.ndim <= index.ndim:
        return values
    chosen: Floats = values[0]
    for rank in range(1, len(values)):
        chosen = np.where(index == rank, values[rank], chosen)
    return chosen


def slowest_rank(ranks: RankTime) -> Clock:
    """The rank whose micro-batch takes longest, strategy by strategy."""
    rank = np.argmax(ranks.total, axis=0)
    return Clock(
        rank=rank,
        forward=choose_rank(ranks.forward, rank),
        backward=choose_rank(ranks.backward, rank),
        weight=choose_rank(ranks.weight, rank),
        only_steady=choose_rank(ranks.only_steady, rank),
    )


def bubble_s(work: Work, s: Strategies, wires: Links, clock: Clock, all_stages: Floats) -> Floats:
    """Seconds in which the slowest rank idles; ``all_stages`` is (2)."""
    _, bubble = pipeline_s(
        s.schedule,
        work.n_micro_batches,
        s.pp,
        s.vpp,
        forward_s=clock.forward,
        backward_s=clock.backward,
        weight_s=clock.weight,
        all_stages_s=all_stages,
        p2p_s=hop_s(work, wires),
        round_share=work.round_share,
    )
    return np.where(s.pp > 1, bubble, 0.0)


def straggler_s(work: Work, c: Constants, before: Floats) -> Floats:
    """What (5) adds to ``before`` = T_p + T_o."""
    return np.asarray(before * c.straggler * np.log2(np.maximum(work.machine.n_nodes, 1.0)))


def price(
    work: Work, strategies: Strategies, constants: Constants, *, breakdown: bool = True
) -> StepTime:
    """Seconds of one step, equations (1) to (5); shapes broadcast to the strategies'.

    Without ``breakdown`` the same total is computed and ``terms`` is empty.
    """
    s, c = strategies, constants
    wires = links(work, c)
    ranks = rank_times(work, s, c, wires, breakdown=breakdown)
    clock = slowest_rank(ranks)
    filling = all_stages_s(work, s, ranks.total - ranks.only_steady, clock.busy - clock.only_steady)
    bubble = bubble_s(work, s, wires, clock, filling + clock.only_steady)  # (1), (3)
    exposed, hidden = gradients_s(work, s, c, wires, clock.forward, clock.rest)
    update, host = optimizer_s(work, s, c)
    m, hidden = work.n_micro_batches, clock.of(hidden)
    once = {
        "dp_comm": clock.of(exposed),
        "bubble": bubble,
        "optimizer": clock.of(update),
        "offload": clock.of(host),
        "launch": np.asarray(c.step_s),
        "overlap_price": c.overlap_price * hidden,
    }  # (4)
    before = m * clock.busy + sum(once.values())
    straggler = straggler_s(work, c, before)
    shape = np.broadcast_shapes(s.shape, before.shape)
    terms: dict[str, Floats] = {}
    if breakdown:
        once["straggler"] = straggler
        zero = np.zeros(())
        for name in TIME_TERMS:
            per_micro_batch = ranks.terms.get(name)
            repeated = zero if per_micro_batch is None else m * clock.of(per_micro_batch)
            terms[name] = np.broadcast_to(repeated + once.get(name, zero), shape)
    return StepTime(
        total_s=np.broadcast_to(before + straggler, shape),
        terms=terms,
        hidden_s=np.broadcast_to(m * clock.of(ranks.hidden) + hidden, shape),
    )


def all_stages_s(work: Work, s: Strategies, total: Floats, slowest: Floats) -> Floats:
    """Equation (2): ``total`` of one micro-batch summed over all pipeline ranks.

    The representative ranks are priced; the layers that they do not hold take the time of
    a layer in the middle of the pipeline.  Given ``stage_layers``, all ranks are priced.
    Where there is one rank it is ``slowest``.
    """
    st = work.stages
    if s.stage_layers is not None:
        rank = np.arange(len(total)).reshape(-1, *(1,) * slowest.ndim)
        return np.asarray(np.where(rank < s.pp, total, 0.0).sum(axis=0))
    per_layer = total / np.maximum(st.n_layers, 1.0)
    middle = np.where((st.has_embedding + st.has_head > 0) | (st.n_layers == 0), 0.0, per_layer)
    per_layer = middle.max(axis=0)
    first, last = total[0], total[min(2, len(total) - 1)]
    held = st.n_layers[0] + st.n_layers[min(2, len(total) - 1)]
    between = np.maximum(work.model_layers - held, 0.0) * per_layer
    return np.where(s.pp > 1, first + last + between, slowest)  # (2)


def step_time_s(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategies: Strategies,
    constants: Constants,
) -> Floats:
    """Step time alone; of the strategies' shape or broadcasting to it."""
    work = step_work(model, cluster, workload, strategies)
    return price(work, strategies, constants, breakdown=False).total_s


def step_cost(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategies: Strategies,
    constants: Constants,
    *,
    breakdown: bool = True,
) -> StepCost:
    """Step time and peak memory of every strategy.

    A sweep that only needs the totals asks for no ``breakdown``: the terms stay empty.

    Parameters and result broadcast: columns of shape S in, arrays of shape S out; one
    strategy is a batch of one.  Nothing is raised for an illegal strategy: its numbers
    mean nothing, and :mod:`search.rules` is there to say so.
    """
    work = step_work(model, cluster, workload, strategies)
    time = price(work, strategies, constants, breakdown=breakdown)
    memory = memory_cost(model, workload, strategies, constants, breakdown=breakdown)
    gpus = strategies.world_size
    peak = np.maximum(work.machine.gemm_flop_per_s, 1.0)
    return StepCost(
        step_time_s=time.total_s,
        time_terms=time.terms,
        hidden_s=time.hidden_s,
        memory=memory,
        tokens_per_s_per_gpu=workload.tokens_per_step / (time.total_s * gpus),
        mfu=work.model_flop / (time.total_s * gpus * peak),  # (6)
    )
