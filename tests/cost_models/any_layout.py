"""Layouts with any knob at any value, for properties that hold of all of them."""

from hypothesis import strategies as st

from cost_models.specs.strategy import (
    ContextParallel,
    Order,
    Precision,
    Recompute,
    Schedule,
    Sharding,
    Strategy,
)

MODELS = st.sampled_from(["dense_model", "moe_model"])
"""Names of the fixtures of ``conftest``."""

CHUNKS = {Schedule.INTERLEAVED: 2, Schedule.ZB_V: 2, Schedule.DUALPIPE: 2}


@st.composite
def layouts(draw: st.DrawFn, schedules: tuple[Schedule, ...] = tuple(Schedule)) -> Strategy:
    """Any knob at any value, on up to 256 GPUs, legal or not."""
    tp, pp = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2, 4]))
    cp, dp = draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2, 8]))
    schedule = draw(st.sampled_from(schedules))
    sharding = draw(st.sampled_from(list(Sharding)))
    shard = {Sharding.NONE: 1, Sharding.HSDP: max(dp // 2, 1)}.get(sharding, dp)
    flag = st.booleans()
    return Strategy(
        dp=dp,
        tp=tp,
        pp=pp,
        cp=cp,
        ep=draw(st.sampled_from([e for e in (1, 2, 8) if dp * cp % e == 0])),
        etp=draw(st.sampled_from([1, tp])),
        vpp=CHUNKS.get(schedule, 1) if pp > 1 else 1,
        schedule=schedule,
        micro_batch_size=draw(st.sampled_from([1, 2])),
        sequence_parallel=draw(flag) and tp > 1,
        sharding=sharding,
        dp_shard=shard,
        reshard_after_forward=draw(flag),
        recompute=draw(st.sampled_from([*Recompute, Recompute.NONE])),
        cp_comm=draw(st.sampled_from(list(ContextParallel))),
        optimizer_offload=draw(st.sampled_from([0.0, 1.0])),
        activation_offload=draw(st.sampled_from([0.0, 0.5])),
        precision=draw(st.sampled_from([Precision.BF16, Precision.FP8])),
        overlap_grad_reduce=draw(flag),
        overlap_param_gather=draw(flag),
        overlap_tp=draw(flag),
        overlap_ep=draw(flag),
        overlap_p2p=draw(flag),
        order=draw(st.sampled_from(list(Order))),
    )
