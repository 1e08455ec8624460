"""Whoever follows README, CONTRIBUTING or a page of the site gets what it says."""

import json
import re
import shlex
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from autopar.cli.group import COMMANDS, CommandGroup, cli
from tests.docs.pages import PAGES, ROOT, Block, blocks, commands, ran, text_of

FORBIDDEN = re.compile(
    r"\b(floors?|items?|cells?|sides?|crew|dear(er|ness)?|manieth|told|passed over)\b",
    re.IGNORECASE,
)
"""Words that stood for lower bounds, strategies, memory and workers, and say less than these."""
RUNS = next(b.text for b in blocks("CONTRIBUTING.md") if b.title == "runs.csv")
SITE = [page for page in PAGES if page.startswith("docs/")]


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the pages take as given: a config.json, measured runs, a file of a job."""
    monkeypatch.chdir(tmp_path)
    config = {
        "model_type": "llama", "num_hidden_layers": 16, "hidden_size": 2048,
        "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 8192,
        "vocab_size": 128256, "max_position_embeddings": 131072,
    }  # fmt: skip
    (tmp_path / "path" / "to").mkdir(parents=True)
    (tmp_path / "path" / "to" / "config.json").write_text(json.dumps(config))
    (tmp_path / "runs.csv").write_text(RUNS)
    return tmp_path


def _follow(block: Block, printed: dict[str, str], names: dict[str, Any]) -> None:
    """Do what one block says, or hold it against what was printed."""
    if block.title:
        Path(block.title).write_text(block.text, encoding="utf-8")
    elif block.output_of is not None:
        assert block.text == printed[shlex.join(shlex.split(block.output_of))]
    elif block.kind == "python":
        exec(block.text, names)  # noqa: S102
    elif block.kind == "sh" and block.runs:
        for command in commands(block):
            code, out, err = ran(command.words)
            assert code == command.exit_code, f"{command.line}: {err}"
            printed[command.line] = out


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/json.md"])
@pytest.mark.usefixtures("room")
def test_a_page_can_be_followed(page: str) -> None:
    """Its files, commands and Python work in their order, and print what it shows."""
    printed: dict[str, str] = {}
    names: dict[str, Any] = {}
    for block in blocks(page):
        _follow(block, printed, names)


def _parsed(words: tuple[str, ...]) -> None:
    group = cli
    assert isinstance(group, CommandGroup)
    context = group.make_context("autopar", list(words[:1]))
    command = group.get_command(context, words[0])
    assert command is not None, f"no command {words[0]}"
    command.make_context(words[0], list(words[1:]), parent=context)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("room")
def test_commands_that_are_not_run_can_be_parsed(page: str) -> None:
    """What would take a server or an hour has at least real options and values."""
    for block in blocks(page):
        if block.kind == "sh" and not block.runs:
            for command in commands(block):
                _parsed(command.words)


@pytest.mark.parametrize("page", PAGES)
def test_options_named_in_the_text_are_real(page: str) -> None:
    """Every ``--option`` in a page belongs to a command, or to a script that the page names."""
    known = {"--check", "--write", "--strict", "--pages"}
    group = cli
    assert isinstance(group, CommandGroup)
    context = group.make_context("autopar", ["gpus"])
    for name in COMMANDS:
        command = group.get_command(context, name)
        assert command is not None
        known |= {option for param in command.params for option in param.opts}
    assert set(re.findall(r"(?<![\w<-])--[a-z][a-z-]+", text_of(page))) <= known


def test_every_command_is_in_the_readme_and_in_the_quick_start() -> None:
    """Whoever reads the first page knows what there is."""
    for page in ("README.md", "docs/index.md"):
        assert all(f"`autopar {name}`" in text_of(page) for name in COMMANDS)


def test_every_page_is_in_the_menu() -> None:
    """A page that nothing leads to is not read."""
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    assert set(re.findall(r": (\w+\.md)$", menu, re.MULTILINE)) == {Path(p).name for p in SITE}


@pytest.mark.parametrize("page", [page for page in PAGES if page != "docs/accuracy.md"])
def test_words_that_say_less_stay_out(page: str) -> None:
    """Pages use the field's words; output that a command prints is the command's business."""
    prose = re.sub(r"```.*?```", "", text_of(page), flags=re.DOTALL)
    assert not FORBIDDEN.findall(prose)


def glossary() -> list[str]:
    """The terms that the glossary defines."""
    return re.findall(r"^([A-Z][\w ]+)\n:   ", text_of("docs/glossary.md"), re.MULTILINE)


@pytest.mark.parametrize("term", glossary())
def test_a_word_of_the_glossary_is_used(term: str) -> None:
    """A definition that no other page needs is clutter."""
    others = " ".join(text_of(page) for page in PAGES if page != "docs/glossary.md")
    assert re.search(rf"\b{term.lower()[:-1]}", " ".join(others.split()), re.IGNORECASE)


def schemas() -> list[tuple[str, set[str], tuple[str, ...]]]:
    """Schema, keys of its table and command of each section of the page on documents."""
    found = []
    for section in text_of("docs/json.md").split("\n## ")[1:]:
        command = re.search(r"```sh\nautopar (.*)\n```", section)
        if command:
            rows = re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE)
            keys = {key for row in rows for key in re.findall(r"`(\w+)`", row)}
            found.append((section.split("\n")[0], keys, tuple(shlex.split(command[1]))))
    return found


@pytest.mark.usefixtures("room")
def test_documents_have_the_keys_that_the_page_lists() -> None:
    """The commands in the page's order write these schemas with exactly these keys."""
    for schema, keys, words in schemas():
        assert ran(words)[0] == 0
        document = json.loads(Path(words[words.index("--json") + 1]).read_text())
        assert document["schema"] == schema
        assert set(document) == keys, schema


def test_the_page_on_documents_knows_every_schema() -> None:
    """No module writes a document that is not described."""
    sources = [
        path
        for room in ("autopar", "search", "cost_models")
        for path in (ROOT / room).rglob("*.py")
    ]
    written = {
        schema
        for path in sources
        for schema in re.findall(r'= "(autopar/[a-z]+/\d+)"', path.read_text(encoding="utf-8"))
    }
    assert written
    assert {schema for schema in written if schema not in text_of("docs/json.md")} == set()


def test_the_equations_page_holds_every_module() -> None:
    """What the site copies from the code is all of the equations."""
    page = import_module("docs.hooks").on_page_markdown("<!-- equations -->")
    rooms = (ROOT / "cost_models" / name for name in ("equations", "counting", "stages"))
    modules = [(room, path) for room in rooms for path in room.rglob("*.py")]
    names = [
        ".".join(path.relative_to(room).with_suffix("").parts)
        for room, path in modules
        if path.name != "__init__.py"
    ]
    assert names
    assert [name for name in names if f"### {name}\n" not in page] == []
