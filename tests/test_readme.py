"""The README's commands exist, its options are real, and its test command is CI's."""

import re
import shlex
from pathlib import Path

import pytest

from autopar.cli.group import COMMANDS, command_called

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def shell_lines() -> list[str]:
    """Every line of the README's shell blocks."""
    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    return [line for block in blocks for line in block.splitlines() if line]


def autopar_lines() -> list[list[str]]:
    """The words after ``autopar`` of every such command in a shell block."""
    found = []
    for line in shell_lines():
        for command in line.split("&&"):
            program, *words = shlex.split(command)
            if program.rsplit("/", maxsplit=1)[-1] == "autopar":
                found.append(words)
    return found


@pytest.mark.parametrize("words", autopar_lines(), ids=" ".join)
def test_a_command_of_the_readme_can_be_parsed(words: list[str]) -> None:
    """The command exists, and so do its options; their values are taken."""
    name, *rest = words
    assert name in COMMANDS
    command_called(name).make_context(name, rest)


def test_every_command_is_in_the_readme() -> None:
    """Whoever reads the README knows what there is."""
    assert all(f"`autopar {name}`" in README for name in COMMANDS)


def test_options_named_in_the_text_are_real() -> None:
    """Every ``--option`` anywhere in the README belongs to some command."""
    known = {
        option
        for name in COMMANDS
        for param in command_called(name).params
        for option in param.opts
    }
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", README)) <= known


def test_the_first_screen_holds_the_two_commands_and_output() -> None:
    """One installs and runs the main job, one runs the tests; what is printed stands between."""
    first = README.splitlines()[:40]
    lines = [line for line in shell_lines() if line in first]
    assert len(lines) == 2
    assert lines[0].endswith("autopar search --gpus 512 --model 70b")
    assert "pip install -e '.[dev]'" in lines[0]
    assert lines[1] == ".venv/bin/pytest -n auto"
    assert any(line.startswith("llama3-70b (70.6B parameters) on 512 x") for line in first)


def test_ci_runs_what_the_readme_runs() -> None:
    """``.ci/run`` installs by the same words and calls the same test command."""
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert re.search(r"^\.venv/bin/pytest\b", script, re.MULTILINE)
    assert "-e '.[dev]'" in script


def test_the_python_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The example prints a strategy with its breakdown."""
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(block, {})  # noqa: S102
    assert "Strategy(dp=" in capsys.readouterr().out
