"""Dossiers: a folder of one's own is a launcher, and what is wrong in it is one line."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from autopar.answers.emission import emit_plan, start_command
from autopar.launchers import dossier, load, names
from cost_models.catalog.frameworks import load_framework
from cost_models.specs.errors import SpecError
from tests.launchers.known_plans import known_plans

FACTS = """name = "made-up"
title = "Made Up"
targets = "Made Up 1.0"
framework = "torchtitan"
batch_is_said = true
signs = ["^made up:"]

[start]
command = "madeup plan.txt"
node = 'exec madeup plan.txt "$@"'
"""
FILES = """from autopar.launchers.knobs import heading
from autopar.launchers.plan import Emission, Reading
from cost_models.specs.strategy import Strategy

def emit(plan, targets):
    lines = [*heading(plan, targets, ()), f"made up: {plan.strategy.dp}"]
    return Emission(files={"plan.txt": "\\n".join(lines)})

def read(files, *, world_size=None, choice=None):
    text = "".join(files.values())
    return Reading(strategy=Strategy(dp=int(text.rpartition(":")[2])))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A launcher that nobody ships, and that knows data parallel only."""
    (tmp_path / "dossier.toml").write_text(FACTS)
    (tmp_path / "files.py").write_text(FILES)
    return tmp_path


def test_a_folder_of_ones_own_is_a_launcher(folder: Path) -> None:
    """Named by its path, it writes, wraps and reads its files as a shipped one does."""
    plan = next(iter(known_plans().values()))
    emission = emit_plan(plan, str(folder), wrapper="torchrun")
    assert (emission.launcher, emission.targets) == ("made-up", "Made Up 1.0")
    assert "exec madeup plan.txt" in emission.files["run.sh"]
    assert "bash run.sh" in start_command(emission)
    read = dossier("made-up").read({"plan.txt": emission.files["plan.txt"]})
    assert read.strategy.dp == plan.strategy.dp


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t + 'port = "1"\n', r"dossier\.toml:\d+: unknown key 'port'"),
        (lambda t: t.replace("title", "titel"), r"dossier\.toml:2: unknown key 'titel'"),
        (lambda t: t.replace("node", "#"), r"dossier\.toml: missing key 'node'"),
        (lambda t: t.replace("true", "1"), r"dossier\.toml:5: batch_is_said must be bool, got 1"),
        (lambda t: t.replace("made-up", "nanotron"), r"name is 'nanotron', which is shipped"),
    ],
)
def test_what_is_wrong_in_a_dossier_is_one_line(
    folder: Path, change: Callable[[str], str], message: str
) -> None:
    """The file, and the line of the key, come first."""
    path = folder / "dossier.toml"
    path.write_text(change(FACTS))
    with pytest.raises(SpecError, match=message):
        load(folder)


@pytest.mark.parametrize("missing", ["dossier.toml", "files.py"])
def test_a_missing_file_is_named(tmp_path: Path, missing: str) -> None:
    """A folder without facts, or without what writes its files, is told which."""
    (tmp_path / "dossier.toml").write_text(FACTS.replace("made-up", "unfinished"))
    (tmp_path / "files.py").write_text(FILES)
    (tmp_path / missing).unlink()
    with pytest.raises(SpecError, match=re.escape(f"{tmp_path / missing}: ")):
        load(tmp_path).read({"plan.txt": "made up: 1"})


@pytest.mark.parametrize("name", names())
def test_every_dossier_names_a_framework(name: str) -> None:
    """Jobs of a launcher can be priced without saying as what."""
    assert load_framework(dossier(name).framework).source
