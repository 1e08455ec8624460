"""Plans by chance: small clusters, every kind of model, every knob that Megatron has."""

from collections.abc import Sequence
from random import Random

from autopar.launchers.plan import Plan
from cost_models.catalog.gpus import load_gpu
from cost_models.catalog.models import load_model
from cost_models.specs.cluster import Cluster
from cost_models.specs.framework import Framework, Optimizer
from cost_models.specs.strategy import (
    ContextParallel,
    Order,
    Precision,
    Recompute,
    Schedule,
    Sharding,
    Strategy,
)
from cost_models.specs.workload import Workload
from search.space.canonical import canonical_strategy

MODELS = (
    "llama3-8b",
    "llama3-70b",
    "llama3.1-405b",
    "mixtral-8x7b",
    "deepseek-v2-lite",
    "deepseek-v3",
    "gpt-oss-20b",
    "qwen3-30b-a3b",
    "gpt3-175b",
    "nemotron-4-340b",
)
SHARDINGS = (Sharding.NONE, Sharding.ZERO1, Sharding.ZERO2, Sharding.FSDP, Sharding.HSDP)
MODULES = (
    Recompute.CORE_ATTN,
    Recompute.LAYERNORM,
    Recompute.ACTIVATION,
    Recompute.MLA_UP_PROJ,
    Recompute.MLP,
    Recompute.MOE,
    Recompute.SHARED_EXPERTS,
)


def workload(batch: int, sequence: int) -> Workload:
    """One step of Megatron-LM with Adam in fp32."""
    return Workload(
        global_batch_size=batch,
        sequence_length=sequence,
        framework=Framework(name="megatron-lm", family="megatron"),
        optimizer=Optimizer(name="adamw", moments_bytes=8, master_bytes=4),
    )


def random_plan(rng: Random, *, models: Sequence[str] = MODELS) -> Plan:
    """A plan whose ranks fill the cluster; whether it is legal is left to chance."""
    model = load_model(rng.choice(models))
    n_gpus = rng.choice((8, 16, 32, 48, 64))
    cluster = Cluster.of(load_gpu("h100"), n_gpus)
    batch = rng.choice((64, 96, 128, 256, 480, 512))
    strategy = random_strategy(rng, model.n_layers, n_gpus, moe=model.is_moe)
    return Plan(
        model=model,
        cluster=cluster,
        workload=workload(batch, rng.choice((2048, 4096, 8192, 6144))),
        strategy=canonical_strategy(strategy, moe=model.is_moe),
    )


def random_strategy(rng: Random, n_layers: int, n_gpus: int, *, moe: bool) -> Strategy:
    """Knobs by chance on ``n_gpus`` ranks."""
    while True:
        tp, pp, cp = (_degree(rng) for _ in range(3))
        if n_gpus % (tp * pp * cp) == 0:
            break
    dp = n_gpus // (tp * pp * cp)
    vpp = rng.choice((1, 1, 2, 3, 4)) if pp > 1 else 1
    sharding = rng.choice(SHARDINGS)
    split = [n for n in range(1, dp + 1) if dp % n == 0]
    recompute = rng.choice(
        (
            Recompute.NONE,
            Recompute.FULL,
            Recompute.CORE_ATTN,
            rng.choice(MODULES) | rng.choice(MODULES),
        )
    )
    offloaded = rng.random() < 0.1
    return Strategy(
        dp=dp,
        tp=tp,
        pp=pp,
        cp=cp,
        ep=rng.choice((1, 2, 4, 8)) if moe else 1,
        etp=rng.choice((1, 1, tp)) if moe else 1,
        vpp=vpp,
        micro_batch_size=rng.choice((1, 1, 1, 2, 4)),
        schedule=Schedule.INTERLEAVED if vpp > 1 else Schedule._1F1B,
        sequence_parallel=rng.random() < 0.7,
        sharding=sharding,
        dp_shard=rng.choice(split) if sharding == Sharding.HSDP else dp,
        reshard_after_forward=rng.random() < 0.8,
        recompute=recompute,
        recompute_layers=rng.choice((0, 0, 1, 2, 4)) if recompute == Recompute.FULL else 0,
        cp_comm=rng.choice(tuple(ContextParallel)),
        optimizer_offload=rng.choice((0.25, 0.5, 1.0)) if rng.random() < 0.15 else 0.0,
        activation_offload=rng.choice((1, n_layers // 2)) / n_layers if offloaded else 0.0,
        precision=rng.choice((Precision.BF16, Precision.BF16, Precision.FP16, Precision.FP8)),
        overlap_grad_reduce=rng.random() < 0.8,
        overlap_param_gather=rng.random() < 0.6,
        overlap_tp=rng.random() < 0.2,
        overlap_ep=moe and rng.random() < 0.3,
        overlap_p2p=rng.random() < 0.7,
        order=rng.choice((Order.TP_CP_EP_DP_PP, Order.TP_CP_EP_DP_PP, Order.TP_CP_EP_PP_DP)),
        stage_layers=_dealt(rng, n_layers, pp * vpp) if pp > 1 and rng.random() < 0.4 else None,
    )


def _degree(rng: Random) -> int:
    return rng.choice((1, 1, 1, 2, 2, 3, 4, 4, 8))


def _dealt(rng: Random, n_layers: int, chunks: int) -> tuple[int, ...]:
    """All layers dealt to the chunks, nearly evenly."""
    counts = [n_layers // chunks] * chunks
    for index in rng.sample(range(chunks), n_layers % chunks):
        counts[index] += 1
    if chunks > 1 and counts[0] > 1 and rng.random() < 0.5:
        counts[0] -= 1
        counts[-1] += 1
    return tuple(counts)
