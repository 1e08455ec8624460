"""A Hugging Face ``config.json`` gives the model that the catalog has, or a clear refusal."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cost_models.catalog.hf_families import FAMILIES
from cost_models.catalog.models import load_model
from cost_models.specs.errors import SpecError
from cost_models.specs.model import ModelSpec

CONFIGS: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parent / "hf_configs.json").read_text()
)
"""The published values of the keys that shape a model."""

LLAMA = {
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 12,
    "num_attention_heads": 4,
    "vocab_size": 1000,
}


def read(folder: Path, config: dict[str, Any]) -> ModelSpec:
    """The model of a ``config.json`` written with one key per line."""
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return load_model(str(folder))


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_config_gives_the_catalogs_model(name: str, tmp_path: Path) -> None:
    """Every field is the same, name and source aside."""
    known = load_model(name)
    model = read(tmp_path, CONFIGS[name])
    assert replace(model, name=known.name, source=known.source) == known


@pytest.mark.parametrize(
    ("config", "published"),
    [
        pytest.param(
            {
                "model_type": "gemma",
                "hidden_size": 3072,
                "intermediate_size": 24576,
                "num_hidden_layers": 28,
                "num_attention_heads": 16,
                "num_key_value_heads": 16,
                "head_dim": 256,
                "vocab_size": 256000,
            },
            8_537_680_896,
            id="gemma-7b",
        ),
        pytest.param(
            {
                "model_type": "gemma3_text",
                "hidden_size": 1152,
                "intermediate_size": 6912,
                "num_hidden_layers": 26,
                "num_attention_heads": 4,
                "num_key_value_heads": 1,
                "head_dim": 256,
                "sliding_window": 512,
                "sliding_window_pattern": 6,
                "vocab_size": 262144,
            },
            999_885_952,
            id="gemma-3-1b",
        ),
        pytest.param(
            {
                "model_type": "phi3",
                "hidden_size": 3072,
                "intermediate_size": 8192,
                "num_hidden_layers": 32,
                "num_attention_heads": 32,
                "num_key_value_heads": 32,
                "sliding_window": 2047,
                "tie_word_embeddings": False,
                "vocab_size": 32064,
            },
            3_821_079_552,
            id="phi-3-mini",
        ),
    ],
)
def test_families_outside_the_catalog_are_counted_exactly(
    config: dict[str, Any], published: int, tmp_path: Path
) -> None:
    """Total parameters as in the checkpoints' headers."""
    assert read(tmp_path, config).n_parameters == published


def test_the_language_part_of_gemma_3_is_read_with_its_defaults(tmp_path: Path) -> None:
    """The 4B model's file leaves out heads, head size and vocabulary; 1 layer in 6 is full."""
    text = {"hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34}
    model = read(tmp_path, {"model_type": "gemma3", "text_config": text | {"sliding_window": 1024}})
    assert model.n_parameters == 3_880_263_168
    assert [i for i in range(34) if i not in model.sliding_window_layers] == [5, 11, 17, 23, 29]


def test_every_family_is_tested() -> None:
    """Those of the published configs, and four written out above."""
    tested = {config["model_type"] for config in CONFIGS.values()}
    assert tested | {"gemma", "gemma3", "gemma3_text", "phi3"} == set(FAMILIES)


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({}, {"n_kv_heads": 4, "head_dim": 16, "tied_embeddings": False, "qkv_bias": False}),
        ({"num_key_value_heads": 1}, {"n_kv_heads": 1}),
        ({"head_dim": 32}, {"head_dim": 32}),
        ({"head_dim": None}, {"head_dim": 16}),
        ({"tie_word_embeddings": True}, {"tied_embeddings": True}),
        ({"attention_bias": True}, {"qkv_bias": True, "attention_out_bias": True}),
        ({"mlp_bias": True}, {"mlp_bias": True}),
        ({"model_type": "qwen2"}, {"qkv_bias": True, "attention_out_bias": False}),
        ({"model_type": "gemma"}, {"tied_embeddings": True, "head_dim": 256}),
        ({"model_type": "qwen3"}, {"qk_norm": True, "head_dim": 128}),
        (
            {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": None},
            {"sliding_window": None, "sliding_window_layers": ()},
        ),
        (
            {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 10},
            {"sliding_window": 4096, "sliding_window_layers": (10, 11)},
        ),
        (
            {
                "model_type": "qwen2",
                "use_sliding_window": True,
                "layer_types": ["sliding_attention", *["full_attention"] * 11],
            },
            {"sliding_window_layers": (0,)},
        ),
    ],
)
def test_keys_and_their_defaults(
    change: dict[str, Any], fields: dict[str, Any], tmp_path: Path
) -> None:
    """What the file leaves out, its family fills in."""
    model = read(tmp_path, LLAMA | change)
    assert {name: getattr(model, name) for name in fields} == fields


@pytest.mark.parametrize(
    ("change", "moe_layers"),
    [
        ({}, tuple(range(12))),
        ({"decoder_sparse_step": 2}, (1, 3, 5, 7, 9, 11)),
        ({"decoder_sparse_step": 4, "mlp_only_layers": [3]}, (7, 11)),
    ],
)
def test_which_layers_of_a_qwen_are_mixtures(
    change: dict[str, Any], moe_layers: tuple[int, ...], tmp_path: Path
) -> None:
    """Every so many layers, except those that are named."""
    experts = {"num_experts": 8, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    kv_heads = {"num_key_value_heads": 4}
    model = read(tmp_path, LLAMA | experts | kv_heads | change | {"model_type": "qwen3_moe"})
    assert model.moe_layers == moe_layers
    assert model.ffn_size == (0 if len(moe_layers) == 12 else 128)


def test_moe_layer_freq_of_deepseek(tmp_path: Path) -> None:
    """After the dense layers, only multiples of the frequency."""
    change = {"first_k_dense_replace": 3, "moe_layer_freq": 4, "num_hidden_layers": 12}
    assert read(tmp_path, CONFIGS["deepseek-v2"] | change).moe_layers == (4, 8)


def test_the_model_is_named_after_its_folder(tmp_path: Path) -> None:
    """Or after the file, where that is not called config.json."""
    folder = tmp_path / "My-7B"
    folder.mkdir()
    assert read(folder, LLAMA).name == "My-7B"
    (folder / "config.json").rename(folder / "other.json")
    assert load_model(str(folder / "other.json")).name == "other"


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"hidden_size": None}, r"config\.json: missing key 'hidden_size'"),
        ({"model_type": None}, r"config\.json: missing key 'model_type'"),
        ({"model_type": 3}, r"config\.json:2: model_type must be a string, got 3"),
        ({"hidden_size": -64}, r"config\.json:3: hidden_size must be >= 1, got -64"),
        ({"hidden_size": "64"}, r'config\.json:3: hidden_size must be an integer, got "64"'),
        ({"hidden_size": 64.0}, r"config\.json:3: hidden_size must be an integer, got 64\.0"),
        ({"hidden_size": True}, r"config\.json:3: hidden_size must be an integer, got true"),
        ({"hidden_size": 66}, r"config\.json:3: hidden_size must be a multiple of 4 heads, got 66"),
        ({"num_hidden_layers": 10**12}, r"config\.json:5: num_hidden_layers must be <= 100000"),
        ({"num_key_value_heads": 3}, r"config\.json:8: num_key_value_heads must divide .* 4"),
        ({"tie_word_embeddings": "no"}, r"config\.json:8: tie_word_embeddings must be true or"),
        ({"model_type": "qwen2", "layer_types": ["x"]}, r"layer_types must name 12 layers"),
        ({"model_type": "qwen2", "layer_types": 5}, r"layer_types must be a list of strings"),
        ({"model_type": "gemma3", "text_config": []}, r"text_config must be an object, got \[\]"),
        ({"model_type": "qwen3_moe"}, r"config\.json: missing key 'num_experts'"),
        ({"model_type": "deepseek_v3"}, r"config\.json: missing key 'qk_nope_head_dim'"),
        (CONFIGS["mixtral-8x7b"] | {"num_experts_per_tok": 9}, r"top_k must be <= 8 experts"),
        (CONFIGS["deepseek-v3"] | {"attention_bias": True}, r"attention_bias is not supported"),
    ],
)
def test_what_cannot_be_is_refused_with_file_and_key(
    change: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    """Missing, negative, wrongly typed or contradictory: one line says which."""
    with pytest.raises(SpecError, match=complaint):
        read(tmp_path, LLAMA | change)


def test_an_unsupported_family_is_named_with_those_that_are(tmp_path: Path) -> None:
    """The nearest first, then all."""
    with pytest.raises(SpecError, match=r"config\.json:2: model_type 'lama' is not") as caught:
        read(tmp_path, LLAMA | {"model_type": "lama"})
    assert caught.value.hint is not None
    assert "did you mean 'llama'?" in caught.value.hint
    assert "qwen3_moe" in caught.value.hint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{\n  "model_type": "llama",\n  oops\n}', r"config\.json:3:3: not valid JSON"),
        ("", r"config\.json:1:1: not valid JSON"),
        ("[1, 2]", r"config\.json: must hold a JSON object, got \[1, 2\]"),
        ("[" * 100_000, r"config\.json: not valid JSON"),
        ('{"hidden_size": 1' + "0" * 5000 + "}", r"config\.json: not valid JSON"),
    ],
)
def test_text_that_is_no_json_object_is_refused(text: str, complaint: str, tmp_path: Path) -> None:
    """With line and column where there is one."""
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(SpecError, match=complaint):
        load_model(str(path))
