"""The group of commands, each loaded when it is called and not before.

Every way out is decided here: 0 for an answer, 1 where nothing fits, 2 for an input that
cannot be, 130 for Ctrl-C.  What is wrong is one line on standard error, what would be
right another.
"""

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from autopar.cli.examples import write_examples

if TYPE_CHECKING:
    from search.rules import Rule

COMMANDS = {
    "search": "The Pareto frontier of memory against step time",
    "estimate": "One strategy, with its full breakdown of time and memory",
    "simulate": "One step of one strategy, replayed as events",
    "worker": "One more process for an exploration that is kept in a storage",
    "improve": "A better plan for a job that exists, change by change",
    "emit": "The files that start a strategy",
    "explain": "Why a strategy is illegal, does not fit, or is slower",
    "validate": "How far predictions are from measured runs",
    "calibrate": "Fit the constants to measured runs of your own",
    "models": "The models that are known by name",
    "gpus": "The GPUs that are known by name, and where each number is from",
    "clusters": "The clusters that are known by name",
}
"""Names of the modules in ``commands``, each with its line of help."""

_IN_CATALOG = ("models", "gpus", "clusters")

NOTHING_FITS = 1
WRONG_INPUT = 2
INTERRUPTED = 130
BROKEN_PIPE = 141

_COMPLETE = "_AUTOPAR_COMPLETE"
"""Set by the shell that wants to know how a word could go on."""

_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


EXAMPLES = (
    "autopar search --gpus 512 --model 70b",
    "autopar estimate --gpus 512 --model 70b --tp 4 --pp 4 --sharding zero1",
)


def command_called(name: str) -> click.Command:
    """The command of that name, from its own module."""
    room = "commands.catalog" if name in _IN_CATALOG else "commands"
    command: click.Command = import_module(f"autopar.cli.{room}.{name}").command
    return command


class CommandGroup(click.Group):
    """Commands by name, imported one at a time, and one voice for all errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names in the order in which one meets them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, from its own module."""
        return command_called(cmd_name) if cmd_name in COMMANDS else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with a near miss for a command that is not there."""
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            raise _WithHint(f"no command is called {args[0]!r}", near(args[0], list(COMMANDS)))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Names and lines of help, without loading anything."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """What to type first."""
        write_examples(EXAMPLES, formatter)

    def main(self, args: Sequence[str] | None = None, *_: Any, **__: Any) -> Any:
        """Run one command and exit with its code."""
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                stream.reconfigure(errors="replace")
        sys.exit(self._run(args))

    def _run(self, args: Sequence[str] | None) -> int:
        """The code of one command, whatever becomes of it."""
        try:
            code = self._answer(sys.argv[1:] if args is None else list(args))
            sys.stdout.flush()
        except click.exceptions.Exit as left:
            return left.exit_code
        except KeyboardInterrupt as stop:
            if sys.stderr.isatty():
                click.echo(err=True)  # the terminal has written ^C
            return complain("interrupted", getattr(stop, "hint", None), code=INTERRUPTED)
        except BrokenPipeError:
            _close_stdout()
            return BROKEN_PIPE
        except click.ClickException as error:
            return complain(*_in_words(error))
        except ValueError as error:
            from cost_models.specs.errors import SpecError

            if not isinstance(error, SpecError):
                raise
            return complain(str(error), error.hint)
        return code

    def _answer(self, args: list[str]) -> int:
        instruction = os.environ.get(_COMPLETE)
        if instruction:
            from click.shell_completion import shell_complete

            return shell_complete(self, {}, "autopar", _COMPLETE, instruction)
        with self.make_context("autopar", args) as context:
            code = self.invoke(context)
        return code if isinstance(code, int) else 0


class _WithHint(click.UsageError):
    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


def near(word: str, known: Sequence[str]) -> str:
    """A hint with the nearest of the known words, or with all of them."""
    close = get_close_matches(word, known, n=3)
    if close:
        return f"did you mean {' or '.join(close)}?"
    return f"known: {', '.join(known)}"


def complain(message: str, hint: str | None = None, code: int = WRONG_INPUT) -> int:
    """Say on standard error what is wrong, in one line and a hint; returns ``code``."""
    click.echo(f"error: {_one_line(message)}", err=True)
    if hint:
        click.echo(f"hint: {_one_line(hint)}", err=True)
    return code


def complain_all(lines: Sequence[str], code: int) -> int:
    """The first line is what is wrong, the others lead out of it; returns ``code``."""
    complain(lines[0], code=code)
    for line in lines[1:]:
        click.echo(f"hint: {_one_line(line.removeprefix('hint:'))}", err=True)
    return code


def complain_broken(broken: "Sequence[tuple[Rule, str]]", way_out: str) -> int:
    """Every rule that a strategy breaks is an error of its own; returns the exit code."""
    for rule, why in broken:
        complain(f"{rule.name}: {why}")
    click.echo(f"hint: {way_out}", err=True)
    return WRONG_INPUT


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _in_words(error: click.ClickException) -> tuple[str, str | None]:
    """Message and hint of what click found wrong."""
    context = getattr(error, "ctx", None)
    path = context.command_path if context else "autopar"
    if isinstance(error, _WithHint):
        return error.message, error.hint
    if isinstance(error, click.NoSuchOption) and context:
        options = [o for p in context.command.params for o in p.opts if o.startswith("--")]
        close = get_close_matches(error.option_name, options, n=3)
        hint = f"did you mean {' or '.join(close)}?" if close else f"try {path} --help"
        return f"{path} has no option {error.option_name}", hint
    if isinstance(error, click.MissingParameter) and error.param is not None:
        return f"{path} needs {error.param.opts[0]}", f"try {path} --help"
    message = error.format_message().rstrip(".")
    if isinstance(error, click.BadParameter) and error.param is not None:
        verb = error.message.startswith(("must", "range"))
        message = f"{error.param.opts[0]}{'' if verb else ':'} {error.message.rstrip('.')}"
        return message, None
    return message[:1].lower() + message[1:].replace("'", ""), f"try {path} --help"


def _close_stdout() -> None:
    """Keep the interpreter from complaining about the pipe once more at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    """Print the version that is installed; a checkout alone has none."""
    if wanted:
        from importlib.metadata import PackageNotFoundError, version

        try:
            click.echo(f"autopar {version('autopar')}")
        except PackageNotFoundError:
            click.echo("autopar, not installed")
        context.exit()


@click.group(cls=CommandGroup, context_settings=_CONTEXT, invoke_without_command=True)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
    help="Show the version and exit.",
)  # fmt: skip
@click.pass_context
def cli(context: click.Context) -> None:
    """How to lay out the training of a large model on GPUs; it needs none to answer."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())
