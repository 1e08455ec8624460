"""The four jobs whose files are kept as examples: one plan each, written by hand."""

from autopar.launchers.plan import Plan, Prediction
from cost_models.catalog.gpus import load_gpu
from cost_models.catalog.models import load_model
from cost_models.specs.cluster import Cluster
from cost_models.specs.strategy import Precision, Recompute, Schedule, Sharding, Strategy
from cost_models.specs.units import GIB
from search.space.canonical import canonical_strategy
from tests.launchers.random_plans import workload


def _plan(model: str, gpu: str, batch: int, sequence: int, strategy: Strategy) -> Plan:
    spec = load_model(model)
    return Plan(
        model=spec,
        cluster=Cluster.of(load_gpu(gpu), strategy.world_size),
        workload=workload(batch, sequence),
        strategy=canonical_strategy(strategy, moe=spec.is_moe),
        prediction=Prediction(
            step_time_s=10.0,
            memory_bytes=60 * GIB,
            step_time_low_s=9.0,
            step_time_high_s=11.5,
            memory_low_bytes=55 * GIB,
            memory_high_bytes=64 * GIB,
        ),
    )


def known_plans() -> dict[str, Plan]:
    """By the name of their golden file."""
    return {
        "llama3-70b-512": _plan(
            "llama3-70b",
            "h100",
            1024,
            8192,
            Strategy(
                dp=16,
                tp=8,
                pp=4,
                vpp=5,
                schedule=Schedule.INTERLEAVED,
                sequence_parallel=True,
                sharding=Sharding.ZERO1,
                dp_shard=16,
            ),
        ),
        "llama3.1-405b-16384": _plan(
            "llama3.1-405b",
            "h100",
            2048,
            8192,
            Strategy(
                dp=128,
                tp=8,
                pp=16,
                sequence_parallel=True,
                sharding=Sharding.ZERO1,
                dp_shard=128,
                stage_layers=(7, *[8] * 14, 7),
                recompute=Recompute.CORE_ATTN,
            ),
        ),
        "mixtral-8x22b-128": _plan(
            "mixtral-8x22b",
            "h100",
            1024,
            4096,
            Strategy(
                dp=16,
                tp=2,
                pp=4,
                ep=8,
                vpp=7,
                schedule=Schedule.INTERLEAVED,
                sequence_parallel=True,
                sharding=Sharding.ZERO1,
                dp_shard=16,
                overlap_ep=True,
            ),
        ),
        "deepseek-v3-2048": _plan(
            "deepseek-v3",
            "h800",
            16384,
            4096,
            Strategy(
                dp=128,
                pp=16,
                ep=64,
                vpp=2,
                schedule=Schedule.INTERLEAVED,
                sharding=Sharding.ZERO1,
                dp_shard=128,
                stage_layers=(1, *[2] * 30, 0),
                precision=Precision.FP8,
                recompute=Recompute.LAYERNORM | Recompute.MLA_UP_PROJ,
            ),
        ),
    }
