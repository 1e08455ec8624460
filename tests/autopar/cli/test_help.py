"""Help is quick, complete and full of lines that work."""

import json
import shlex
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click
import pytest

from autopar.cli.group import COMMANDS, EXAMPLES, command_called
from autopar.cli.options import AXIS_HELP
from search.space.axes import AXES

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

Run = Callable[..., Any]
HEAVY = ("ortools", "optuna", "scipy", "numpy", "rich", "pandas")
LOADED = """
import json, sys
from autopar.cli import cli
try:
    cli.main(["--help"])
except SystemExit:
    print(json.dumps(sorted(sys.modules)), file=sys.stderr)
"""


def test_help_loads_nothing_heavy() -> None:
    """The list of commands needs neither arrays, nor solvers, nor colours."""
    done = subprocess.run(
        [sys.executable, "-c", LOADED], capture_output=True, text=True, check=True
    )
    loaded = json.loads(done.stderr)
    assert not [name for name in loaded if name.split(".")[0] in HEAVY]


@pytest.mark.skipif(resource is None, reason="counts seconds as POSIX does")
def test_help_takes_less_than_three_tenths_of_a_second() -> None:
    """Seconds of the processor, the best of three, for the machine may have other work."""

    def spent_s() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    times_s = []
    for _ in range(3):
        start_s = spent_s()
        subprocess.run([sys.executable, "-m", "autopar", "--help"], check=True, capture_output=True)
        times_s.append(spent_s() - start_s)
    assert min(times_s) < 0.3


def test_the_group_names_every_command(run: Run) -> None:
    """Name and line of help of each, and a bare ``autopar`` says the same."""
    out = run("--help").out
    assert all(f"  {name} " in out and line in out for name, line in COMMANDS.items())
    assert run("").out == out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_an_example_that_it_can_parse(run: Run, name: str) -> None:
    """The examples of the help use options that exist, with values that are taken."""
    command: Any = command_called(name)
    out = run(f"{name} --help").out
    assert command.examples
    for line in command.examples:
        program, called, *words = shlex.split(line)
        assert (program, called) == ("autopar", name)
        assert f"  {line}\n" in out
        command.make_context(name, list(words), resilient_parsing=False)


def test_the_group_s_examples_are_commands() -> None:
    """What the first screen shows can be typed."""
    assert {line.split()[1] for line in EXAMPLES} <= set(COMMANDS)


def test_every_axis_is_an_option() -> None:
    """The command line can fix whatever the search can choose; precision is of the workload."""
    assert set(AXIS_HELP) | {"precision"} == set(AXES)


def test_every_option_has_a_line_of_help() -> None:
    """Nothing is left to guess."""
    for name in COMMANDS:
        command: click.Command = command_called(name)
        options = [param for param in command.params if isinstance(param, click.Option)]
        assert all(option.help for option in options), name


def test_version_is_one_line(run: Run) -> None:
    """``autopar --version`` names the program."""
    out = run("--version").out
    assert out.startswith("autopar")
    assert out.count("\n") == 1
