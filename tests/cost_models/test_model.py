"""Parameter counts agree with what the models' makers published."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest

from cost_models.catalog.models import load_model, model_names
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec

PUBLISHED = list(
    csv.DictReader(
        (Path(__file__).parent / "published_parameters.csv").read_text().splitlines(),
    )
)
MOE = [row for row in PUBLISHED if row["active"]]
TOLERANCE = 1e-3

TINY = ModelSpec(
    name="tiny",
    n_layers=2,
    hidden_size=8,
    n_heads=4,
    n_kv_heads=2,
    head_dim=2,
    ffn_size=16,
    vocab_size=32,
)


def agrees(count: int, published: str) -> bool:
    """Within 0.1 %, or the same once rounded or cut off at the digits that were published."""
    if published.isdigit():
        return abs(count / int(published) - 1) <= TOLERANCE
    digits = published.removesuffix("B")
    decimals = len(digits.partition(".")[2])
    steps = count / 1e9 * 10**decimals
    figure = round(float(digits) * 10**decimals)
    return figure in (round(steps), int(steps)) or abs(steps / figure - 1) <= TOLERANCE


def name_of(row: dict[str, str]) -> str:
    return row["model"]


@pytest.mark.parametrize("row", PUBLISHED, ids=name_of)
def test_all_parameters_agree_with_the_published_figure(row: dict[str, str]) -> None:
    """The total is within 0.1 % of the published one."""
    assert agrees(load_model(row["model"]).n_parameters, row["total"])


@pytest.mark.parametrize("row", [r for r in PUBLISHED if r["total"].isdigit()], ids=name_of)
def test_counts_of_tensors_are_met_exactly(row: dict[str, str]) -> None:
    """Where the makers' tensors were counted one by one, so is every scalar here."""
    assert load_model(row["model"]).n_parameters == int(row["total"])


@pytest.mark.parametrize("row", MOE, ids=name_of)
def test_active_parameters_agree_in_the_makers_way_of_counting(row: dict[str, str]) -> None:
    """Less the embedding for those who count the output head alone."""
    model = load_model(row["model"])
    left_out = {"all": 0, "head": model.embedding_parameters}[row["active_counts"]]
    assert agrees(model.n_active_parameters - left_out, row["active"])


def test_every_model_has_a_published_figure_with_its_source() -> None:
    """No model of the catalog goes unchecked."""
    assert sorted(row["model"] for row in PUBLISHED) == list(model_names())
    assert all(row["source"] for row in PUBLISHED)


def test_every_mixture_of_experts_has_a_published_active_count() -> None:
    """And no dense model has one."""
    assert {row["model"] for row in MOE} == {n for n in model_names() if load_model(n).is_moe}


def test_mtp_parameters_are_what_the_checkpoint_has_beyond_the_main_model() -> None:
    """DeepSeek V3's files hold 684,489,845,504, copies of embedding and head included."""
    model = load_model("deepseek-v3")
    copies = 2 * model.vocab_size * model.hidden_size
    assert model.n_parameters + model.mtp_parameters + copies == 684_489_845_504


def test_a_tiny_model_counted_by_hand() -> None:
    """Two layers: attention 8 x (8 + 4 + 4 + 8), MLP 3 x 8 x 16, two norms of 8 each."""
    layer = 192 + 384 + 16
    assert TINY.n_parameters == 2 * layer + 2 * 32 * 8 + 8


def test_a_tied_head_costs_nothing() -> None:
    """One table of vocab x hidden less."""
    assert TINY.n_parameters - replace(TINY, tied_embeddings=True).n_parameters == 32 * 8


def test_dense_models_are_all_active() -> None:
    """Without experts every token meets every parameter."""
    assert TINY.n_active_parameters == TINY.n_parameters


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hidden_size": 0}, r"model\.hidden_size must be > 0, got 0"),
        ({"q_lora_rank": -1}, r"model\.q_lora_rank must be >= 0, got -1"),
        ({"n_kv_heads": 3}, r"n_heads must be a multiple of n_kv_heads 3, got 4"),
        ({"norm": "batchnorm"}, r"norm must be one of rmsnorm, layernorm, got 'batchnorm'"),
        ({"position": "learned"}, r"max_sequence_length must be given"),
        ({"n_layers": 10**6}, r"n_layers must be <= 100000, got 1000000"),
        ({"sliding_window_layers": (0,)}, r"sliding_window_layers needs model\.sliding_window"),
        ({"n_experts": 4}, r"moe_layers and n_experts go together"),
        ({"sliding_window": 4, "sliding_window_layers": (2,)}, r"layer indices below 2, got \[2\]"),
    ],
)
def test_shapes_that_cannot_be_are_refused(change: dict[str, int], complaint: str) -> None:
    """The message names the field, the bound and the value."""
    with pytest.raises(SpecError, match=complaint):
        replace(TINY, **change)  # type: ignore[arg-type]
