"""FLOPs equal the published formulas, kernels equal the parameters, and groups their ranks."""

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cost_models.catalog.models import load_model
from cost_models.counting.layer_work import Gemm
from cost_models.counting.traffic import Group, Traffic
from cost_models.counting.work import Work, concatenate, model_flop, step_work
from cost_models.specs.cluster import Cluster, Gpu
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import ContextParallel, Order, Sharding, Strategies, Strategy
from cost_models.specs.workload import Workload

Job = Callable[..., Workload]
some = settings(max_examples=50)


@pytest.fixture(scope="session")
def work(workload: Job, h100: Gpu) -> Callable[..., Work]:
    """Count one strategy's work."""

    def count(model: ModelSpec, strategy: Strategy, job: Workload | None = None) -> Work:
        cluster = Cluster.of(h100, strategy.world_size)
        return step_work(model, cluster, job or workload(), Strategies.of(strategy))

    return count


def multiply_adds(*gemms: Gemm) -> float:
    """Summed m n k of all groups."""
    return float(sum((g.m * g.n * g.k * g.groups).item() for g in gemms))


# ---------------------------------------------------------------- published
@pytest.mark.parametrize(
    ("name", "batch", "sequence", "published"),
    [
        # arXiv:2104.04473 (3), a quarter less where nothing is recomputed
        ("megatron-175b", 1536, 2048, 72 * 1536 * 2048 * 96 * 12288**2
         * (1 + 2048 / (6 * 12288) + 51200 / (12 * 96 * 12288))),
        ("megatron-22b", 4, 2048, 72 * 4 * 2048 * 48 * 6144**2
         * (1 + 2048 / (6 * 6144) + 51200 / (12 * 48 * 6144))),
        ("megatron-1t", 512, 2048, 72 * 512 * 2048 * 128 * 25600**2
         * (1 + 2048 / (6 * 25600) + 51200 / (12 * 128 * 25600))),
        # Megatron-LM, num_floating_point_operations, with grouped queries and SwiGLU
        ("llama3-70b", 1024, 8192, 12 * 1024 * 8192 * 80 * 8192**2
         * (1 + 8 / 64 + 8192 / 8192 + 28672 / 8192 * 1.5 + 128256 / (2 * 80 * 8192))),
        ("mixtral-8x7b", 256, 4096, 12 * 256 * 4096 * 32 * 4096**2
         * (1 + 8 / 32 + 4096 / 4096 + 14336 / 4096 * 2 * 1.5 + 32000 / (2 * 32 * 4096))),
    ],
)  # fmt: skip
def test_flop_as_megatron_counts_them(
    workload: Job, name: str, batch: int, sequence: int, published: float
) -> None:
    """The whole score matrix counted, forward and backward, recompute left out."""
    flop = model_flop(load_model(name), workload(sequence, batch), masked_scores=True)
    assert flop == pytest.approx(published, rel=5e-4)


def test_flop_of_gpt3() -> None:
    """OpenAI's 3.14e23 for 300e9 tokens are 6 N D; attention and head add a twentieth at most."""
    assert 6 * load_model("gpt3-175b").n_parameters * 300e9 == pytest.approx(3.14e23, rel=0.01)


@pytest.mark.parametrize("name", ["llama3-8b", "llama3-70b", "llama3.1-405b"])
def test_flop_per_token_of_llama(workload: Job, name: str) -> None:
    """Six per parameter outside the embedding, and twelve per layer, query scalar and key seen."""
    model = load_model(name)
    job = workload(8192, 1)
    per_token = model_flop(model, job, masked_scores=True) / job.tokens_per_step
    matrices = 6 * (model.n_parameters - model.embedding_parameters)
    scores = 12 * model.n_layers * model.query_size * 8192
    assert per_token == pytest.approx(matrices + scores, rel=1e-3)


def test_flop_of_deepseek_v3(workload: Job) -> None:
    """Six per active parameter and token: 37e9 without MTP and embedding, 10 % more with them."""
    model = load_model("deepseek-v3")
    job = workload(4096, 1)
    per_token = model_flop(model, job) / job.tokens_per_step
    assert 6 * 37e9 < per_token < 1.25 * 6 * 37e9


@given(st.sampled_from(["8b", "mixtral-8x7b", "gemma-2-9b"]), st.sampled_from([1024, 32768]))
def test_half_the_scores_are_masked(workload: Job, name: str, sequence: int) -> None:
    """Counting what the mask removes adds exactly the scores once more."""
    model, job = load_model(name), workload(sequence, 8)
    masked, causal = model_flop(model, job, masked_scores=True), model_flop(model, job)
    short = workload(1, 8 * sequence)
    matrices = 2 * model_flop(model, short) - model_flop(model, short, masked_scores=True)
    assert masked - causal == pytest.approx(causal - matrices, rel=1e-6)


def test_windows_spare_scores(workload: Job) -> None:
    """Half of gpt-oss's layers see 128 tokens: what they do not see costs nothing."""
    model, job = load_model("gpt-oss-20b"), workload(8192, 1)
    everywhere = replace(model, sliding_window=None, sliding_window_layers=())
    unseen = 12 * (8192 / 2 - 128 * (1 - 128 / 8192 / 2))
    spared = 6 * 2 * model.query_size * unseen * 8192
    assert model_flop(everywhere, job) - model_flop(model, job) == pytest.approx(spared)


# -------------------------------------------------------------------- GEMMs
@pytest.mark.parametrize("name", ["8b", "gpt2-xl", "deepseek-v3", "deepseek-v2-lite", "gemma-2-9b"])
def test_gemms_are_the_matrices(work: Callable[..., Work], name: str) -> None:
    """Summed over a layer, n k is the number of weights, biases and norms aside."""
    model = load_model(name)
    layer = work(model, Strategy()).layer
    assert multiply_adds(*layer.attention_gemms) / 4096 == pytest.approx(
        model.attention_parameters, rel=2e-3
    )
    assert multiply_adds(*layer.dense_gemms) / 4096 == pytest.approx(
        model.dense_mlp_parameters, rel=2e-3
    )


@some
@given(
    st.sampled_from(["llama3-70b", "deepseek-v3", "mixtral-8x7b"]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 8]),
    st.booleans(),
)
def test_ranks_share_out_the_gemms(
    work: Callable[..., Work], name: str, tp: int, cp: int, ep: int, folded: bool
) -> None:
    """The ranks of one replica multiply as much together as one rank alone would."""
    model = load_model(name)
    etp = 1 if folded else tp
    one = work(model, Strategy()).layer
    many = work(
        model, Strategy(tp=tp, cp=cp, dp=ep, ep=ep, etp=etp, sequence_parallel=tp > 1)
    ).layer
    ranks = tp * cp
    for name_of in ("attention_gemms", "dense_gemms", "shared_gemms", "expert_gemms"):
        whole = multiply_adds(*getattr(one, name_of))
        assert multiply_adds(*getattr(many, name_of)) * ranks == pytest.approx(whole)


def test_each_expert_sees_its_share_of_the_tokens(work: Callable[..., Work]) -> None:
    """DeepSeek V3 on 64 expert ranks: 4 experts of 4096 x 8 / 4 rows each."""
    up, down, router = work(load_model("deepseek-v3"), Strategy(ep=64, dp=64)).layer.expert_gemms
    assert (up.m.item(), up.n.item(), up.k.item(), up.groups.item()) == (8192, 4096, 7168, 4)
    assert (down.n.item(), down.k.item()) == (7168, 2048)
    assert (router.m.item(), router.n.item()) == (4096, 256)


def test_latent_attention_projects_as_published(work: Callable[..., Work]) -> None:
    """DeepSeek V3's down-, up- and output projections at tp 4."""
    gemms = work(load_model("deepseek-v3"), Strategy(tp=4, sequence_parallel=True)).layer
    shapes = [(g.m.item(), g.n.item(), g.k.item()) for g in gemms.attention_gemms]
    assert shapes == [
        (1024, 1536 + 512 + 64, 7168),
        (4096, 7168, 32 * 128),
        (4096, 32 * 192, 1536),
        (4096, 32 * 256, 512),
    ]


# -------------------------------------------------------------------- wires
@some
@given(
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1, 2, 4, 8]),
    st.sampled_from(list(Order)),
    st.sampled_from([Sharding.NONE, Sharding.ZERO1, Sharding.FSDP, Sharding.HSDP]),
)
def test_groups_have_all_their_ranks(
    work: Callable[..., Work],
    moe_model: ModelSpec,
    tp: int,
    cp: int,
    pp: int,
    dp: int,
    order: Order,
    sharding: Sharding,
) -> None:
    """Inside times outside is the size of every group, and none exceeds an NVLink domain."""
    shard = {Sharding.NONE: 1, Sharding.HSDP: max(dp // 2, 1)}.get(sharding, dp)
    strategy = Strategy(
        tp=tp, cp=cp, pp=pp, dp=dp, ep=dp, order=order, sharding=sharding, dp_shard=shard
    )
    t: Traffic = work(moe_model, strategy).traffic
    sizes = {
        "tp": tp, "etp": 1, "cp": cp, "ep": dp, "dp": dp * cp, "edp": tp * cp,
        "shard": shard * cp, "replica": dp // shard,
    }  # fmt: skip
    for name, size in sizes.items():
        group: Group = getattr(t, name)
        assert (group.inside * group.outside).item() == pytest.approx(size), name
        assert 1 <= group.inside.item() <= 8, name
    copies = t.expert_replica.inside * t.expert_replica.outside
    together = t.expert_shard.inside * t.expert_shard.outside * copies
    assert together.item() == pytest.approx(tp * cp)


def test_data_parallel_behind_the_pipeline_leaves_the_node(
    work: Callable[..., Work], dense_model: ModelSpec
) -> None:
    """With tp 2, cp 2 and pp 4 inside it, dp meets only the context ranks in its node."""
    strategy = Strategy(tp=2, cp=2, pp=4, dp=2)
    inside = work(dense_model, strategy).traffic.dp
    behind = work(dense_model, strategy.with_(order=Order.TP_CP_EP_PP_DP)).traffic.dp
    assert (inside.inside.item(), inside.outside.item()) == (4, 1)
    assert (behind.inside.item(), behind.outside.item()) == (2, 2)


def test_bytes_on_the_wires(work: Callable[..., Work]) -> None:
    """Hidden vectors, top-k copies, keys and values of Qwen 3 235B, counted by hand."""
    model = load_model("qwen3-235b-a22b")
    strategy = Strategy(
        tp=2, etp=2, cp=4, pp=2, dp=4, ep=8, sequence_parallel=True,
        cp_comm=ContextParallel.ALL_GATHER, micro_batch_size=2,
    )  # fmt: skip
    t = work(model, strategy).traffic
    tokens, h = 2 * 4096 // 4, 4096
    assert t.tp_bytes == 2 * h * tokens
    assert t.p2p_bytes == 2 * h * tokens // 2
    assert t.ep_bytes == 2 * h * tokens * 8 // 2
    assert t.etp_bytes == 2 * h * tokens * 8
    assert t.cp_kv_bytes == 2 * 2 * (4 * 128 // 2) * tokens
    assert t.cp_qo_bytes == 2 * 2 * (64 * 128 // 2) * tokens


@pytest.mark.parametrize(
    ("framework", "sequence_parallel", "parts"),
    [
        ("megatron-lm-2022", False, 4),
        ("megatron-lm-2022", True, 4),
        ("megatron-lm", False, 1),
        ("megatron-lm", True, 4),
    ],
)
def test_stages_send_what_each_rank_holds_or_a_part_of_it(
    work: Callable[..., Work],
    workload: Job,
    dense_model: ModelSpec,
    framework: str,
    sequence_parallel: bool,
    parts: int,
) -> None:
    """Four ranks with the same hidden states send a quarter each (arXiv:2104.04473, 4.1)."""
    job = workload(framework=framework)
    layout = Strategy(tp=4, pp=2, sequence_parallel=sequence_parallel)
    whole = work(dense_model, layout.with_(tp=1), job).traffic.p2p_bytes
    assert work(dense_model, layout, job).traffic.p2p_bytes == whole / parts


def test_latent_attention_sends_narrow_values(work: Callable[..., Work]) -> None:
    """DeepSeek V3's keys are 192 wide and its values 128."""
    t = work(load_model("deepseek-v3"), Strategy(cp=2)).traffic
    assert t.cp_kv_bytes == 2 * 128 * (192 + 128) * 2048


@given(st.sampled_from(["dense_model", "moe_model"]))
def test_a_single_gpu_sends_nothing(
    request: pytest.FixtureRequest, work: Callable[..., Work], name: str
) -> None:
    """All messages of one rank are empty."""
    t = work(request.getfixturevalue(name), Strategy()).traffic
    for field in fields(t):
        if field.name.endswith("_bytes"):
            assert getattr(t, field.name) == 0, field.name


def test_joined_works_are_the_works_side_by_side(
    work: Callable[..., Work], dense_model: ModelSpec, moe_model: ModelSpec
) -> None:
    """Two models with different numbers of priced ranks keep their numbers."""
    parts = [work(dense_model, Strategy(pp=2)), work(moe_model, Strategy(pp=4))]
    n_stages = max(len(part.stages.n_layers) for part in parts)
    joined = concatenate(parts, [1, 1], n_stages)
    for i, part in enumerate(parts):
        np.testing.assert_array_equal(joined.tokens[i], part.tokens[0])
        held = part.stages.n_layers[:, 0]
        np.testing.assert_array_equal(joined.stages.n_layers[: len(held), i], held)
        assert (joined.stages.n_layers[len(held) :, i] == held[-1]).all()
