"""Models are found by name, by alias and by path."""

from pathlib import Path

import pytest

from cost_models.catalog.files import CATALOG
from cost_models.catalog.layers import parse_layers
from cost_models.catalog.models import load_model, model_aliases, model_names
from cost_models.specs.errors import SpecError

TINY_TOML = """
n_layers = 6
hidden_size = 64
n_heads = 4
n_kv_heads = 4
head_dim = 16
ffn_size = 256
vocab_size = 1000
"""


@pytest.fixture
def tiny_toml(tmp_path: Path) -> Path:
    """A model of one's own, small enough to read."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY_TOML)
    return path


@pytest.mark.parametrize("name", model_names())
def test_every_model_loads_and_cites_its_source(name: str) -> None:
    """The name is the file's, and the figures come from somewhere."""
    model = load_model(name)
    assert model.name == name
    assert len(model.source) > 10


def test_names_are_sorted_files() -> None:
    """One file per model and nothing else."""
    files = sorted(path.name for path in (CATALOG / "models").iterdir())
    assert files == sorted(f"{name}.toml" for name in model_names())


@pytest.mark.parametrize(
    ("alias", "name"),
    [("8b", "llama3-8b"), ("70B", "llama3-70b"), ("405b", "llama3.1-405b"), ("1t", "megatron-1t")],
)
def test_short_names_work_in_any_case(alias: str, name: str) -> None:
    """What people say is enough."""
    assert load_model(alias) is not None
    assert load_model(alias) == load_model(name)


def test_aliases_point_at_models_and_at_one_only() -> None:
    """No alias hides a model or leads nowhere."""
    aliases = model_aliases()
    assert set(aliases.values()) <= set(model_names())
    assert not set(aliases) & set(model_names())


def test_no_alias_is_given_twice() -> None:
    """The file's lines and the table have the same number of aliases."""
    text = (CATALOG / "tables" / "model_aliases.toml").read_text()
    listed = [line.partition("=")[2].count('"') // 2 for line in text.splitlines() if "=" in line]
    assert sum(listed) == len(model_aliases())


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("lama3-8b", "llama3-8b"), ("mixtral-8x8b", "mixtral-8x7b"), ("deepseekv3", "deepseek-v3")],
)
def test_an_unknown_name_is_answered_with_the_nearest(typed: str, meant: str) -> None:
    """A slip of the finger costs one line of reading."""
    with pytest.raises(SpecError, match=f"no model named '{typed}'") as caught:
        load_model(typed)
    assert caught.value.hint is not None
    assert meant in caught.value.hint


def test_a_path_to_a_toml_file_is_read(tiny_toml: Path) -> None:
    """Its name is the file's where it gives none."""
    model = load_model(str(tiny_toml))
    assert (model.name, model.n_layers) == ("tiny", 6)


def test_layers_in_a_toml_file_may_be_written_short(tiny_toml: Path) -> None:
    """Here the even ones slide."""
    tiny_toml.write_text(TINY_TOML + 'sliding_window = 32\nsliding_window_layers = "even"\n')
    assert load_model(str(tiny_toml)).sliding_window_layers == (0, 2, 4)


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("hidden_sise = 64", r"tiny\.toml:9: unknown key 'hidden_sise'"),
        ('sliding_window_layers = "2-9"', r"tiny\.toml:9: sliding_window_layers: '2-9' must lie"),
        ("moe_layers = true", r"tiny\.toml:9: moe_layers: must name layers, got True"),
        ('norm = "batchnorm"', r"tiny\.toml:9: model\.norm must be one of"),
        ("rope = ", r"tiny\.toml: not valid TOML: .*line 9"),
    ],
)
def test_a_mistake_in_a_toml_file_is_shown_with_its_line(
    tiny_toml: Path, line: str, complaint: str
) -> None:
    """File and line come first, so that an editor can jump there."""
    tiny_toml.write_text(TINY_TOML + line + "\n")
    with pytest.raises(SpecError, match=complaint):
        load_model(str(tiny_toml))


def test_a_missing_file_and_a_folder_without_config_say_so(tmp_path: Path) -> None:
    """A path is told apart from a name."""
    with pytest.raises(SpecError, match=r"nowhere\.toml: no such file"):
        load_model(str(tmp_path / "nowhere.toml"))
    with pytest.raises(SpecError, match=r"config\.json: no such file"):
        load_model(str(tmp_path))


@pytest.mark.parametrize("word", ["", "   ", "\0", "~nobody/model", "x" * 5000])
def test_any_other_word_is_refused_in_one_line(word: str) -> None:
    """Whatever was typed, it is not a traceback that answers."""
    with pytest.raises(SpecError):
        load_model(word)


@pytest.mark.parametrize(
    ("text", "layers"),
    [
        ("all", (0, 1, 2, 3, 4, 5)),
        ("odd", (1, 3, 5)),
        ("3-5", (3, 4, 5)),
        ("0, 4 - 5", (0, 4, 5)),
        ("even, 1", (0, 1, 2, 4)),
        ([2, 0], (2, 0)),
    ],
)
def test_the_notation_for_layers(text: object, layers: tuple[int, ...]) -> None:
    """Words, ranges and single layers between commas; a list as it stands."""
    assert parse_layers(text, 6) == layers


@pytest.mark.parametrize("text", ["", "most", "5-3", "6", "1-", "-1", [1, "2"], [True], 3, None])
def test_other_notations_are_refused(text: object) -> None:
    """Six layers end at 5."""
    with pytest.raises(SpecError):
        parse_layers(text, 6)
