"""Plans by chance for the launchers beside Megatron-LM, mostly in the words each one has."""

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
    Strategy,
)
from cost_models.specs.workload import Workload
from search.rules import LAUNCHERS, Launcher

DENSE = ("llama3-8b", "llama3-70b", "llama2-7b")
MODELS = {
    "torchtitan": (*DENSE, "qwen3-8b", "qwen3-30b-a3b", "mixtral-8x7b", "deepseek-v2-lite"),
    "deepspeed": (*DENSE, "gpt3-175b", "mixtral-8x7b", "qwen3-30b-a3b"),
    "accelerate": (*DENSE, "gemma-2-9b", "mixtral-8x7b"),
    "nanotron": (*DENSE, "qwen2.5-7b"),
    "maxtext": (*DENSE, "qwen3-8b", "qwen3-30b-a3b", "mixtral-8x7b"),
}
"""Models that each launcher can be given here."""

RECOMPUTES = (
    Recompute.NONE,
    Recompute.FULL,
    Recompute.CORE_ATTN,
    Recompute.LAYERNORM,
    Recompute.LAYERNORM | Recompute.CORE_ATTN,
    Recompute.MLP | Recompute.CORE_ATTN,
)


def workload(batch: int, sequence: int, *, weighted: bool = False) -> Workload:
    """One step with Adam in fp32; ``weighted`` deals embedding and head as layers."""
    return Workload(
        global_batch_size=batch,
        sequence_length=sequence,
        framework=Framework(
            name="torch",
            family="torch",
            partition="embedding_and_head_as_layers" if weighted else "even",
        ),
        optimizer=Optimizer(name="adamw", moments_bytes=8, master_bytes=4),
    )


def random_plan(rng: Random, launcher: str) -> Plan:
    """A plan whose ranks fill the cluster; whether it is legal is left to chance."""
    model = load_model(rng.choice(MODELS[launcher]))
    n_gpus = rng.choice((8, 16, 16, 32, 32, 64, 48))
    vocabulary = LAUNCHERS[launcher]
    return Plan(
        model=model,
        cluster=Cluster.of(load_gpu("h100"), n_gpus),
        workload=workload(
            rng.choice((64, 96, 128, 256, 512)),
            rng.choice((2048, 4096, 8192, 6144)),
            weighted=rng.random() < 0.3,
        ),
        strategy=_strategy(rng, vocabulary, model.n_layers, n_gpus, moe=model.is_moe),
    )


def _strategy(
    rng: Random, vocabulary: Launcher, n_layers: int, n_gpus: int, *, moe: bool
) -> Strategy:
    tp, pp, cp = _degrees(rng, n_gpus, pipeline=vocabulary.pipeline)
    dp = n_gpus // (tp * pp * cp)
    schedule = rng.choice(vocabulary.schedules) if pp > 1 else Schedule._1F1B
    single = (Schedule._1F1B, Schedule.GPIPE)
    vpp = 1 if schedule in single else rng.choice((2, 2, 3, 4))
    vpp = 2 if schedule == Schedule.ZB_V else vpp
    sharding = rng.choice(vocabulary.shardings)
    parts = [n for n in range(1, dp + 1) if dp % n == 0]
    group = 1 if sharding.label == "none" else dp
    stages = _dealt(rng, n_layers, pp * vpp) if pp > 1 and rng.random() < 0.3 else None
    recompute = rng.choice([r for r in RECOMPUTES if vocabulary.has_recompute(r)])
    if recompute not in (Recompute.NONE, Recompute.FULL) and rng.random() < 0.9:
        recompute |= vocabulary.recomputed_along
    ep = rng.choice((1, 2, 4, 8)) if moe and vocabulary.experts else 1
    cut = moe and vocabulary.experts_cut_with_heads and rng.random() < 0.9
    gathers = sharding in vocabulary.gathers_ahead or rng.random() < 0.1
    offload = vocabulary.optimizer_offload and rng.random() < 0.2
    shares = (0.25, 1.0) if vocabulary.partial_offload else (1.0,)
    sp = vocabulary.sequence_parallel and tp > 1 and rng.random() < 0.7
    return Strategy(
        dp=dp,
        tp=tp,
        pp=pp,
        cp=cp,
        ep=ep,
        etp=tp if cut and not (vocabulary.name == "deepspeed" and ep > 1) else 1,
        vpp=vpp,
        micro_batch_size=rng.choice((1, 1, 1, 2, 4, 3)),
        schedule=schedule,
        sequence_parallel=sp,
        sharding=sharding,
        dp_shard=rng.choice(parts) if sharding.label == "hsdp" else group,
        reshard_after_forward=rng.random() < 0.8,
        recompute=recompute,
        cp_comm=rng.choice(vocabulary.cp_comms) if cp > 1 else ContextParallel.P2P,
        optimizer_offload=rng.choice(shares) if offload else 0.0,
        precision=rng.choice((Precision.BF16, rng.choice(vocabulary.precisions))),
        overlap_grad_reduce=rng.random() < 0.9,
        overlap_param_gather=group > 1 and gathers and rng.random() < 0.8,
        overlap_tp=sp and vocabulary.overlap_tp and rng.random() < 0.3,
        order=rng.choice(vocabulary.orders) if pp > 1 else Order.TP_CP_EP_DP_PP,
        stage_layers=stages,
    )


def _degrees(rng: Random, n_gpus: int, *, pipeline: bool) -> Sequence[int]:
    while True:
        tp, cp = rng.choice((1, 1, 2, 4, 8, 16)), rng.choice((1, 1, 1, 2, 4))
        pp = rng.choice((1, 1, 2, 4, 8, 3)) if pipeline else 1
        if n_gpus % (tp * pp * cp) == 0:
            return tp, pp, cp


def _dealt(rng: Random, n_layers: int, chunks: int) -> tuple[int, ...]:
    counts = [n_layers // chunks] * chunks
    for index in rng.sample(range(chunks), n_layers % chunks):
        counts[index] += 1
    if counts[0] > 1 and rng.random() < 0.5:
        counts[0] -= 1
        counts[-1] += 1
    return tuple(counts)
