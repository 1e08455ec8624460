"""Commands whose help ends with lines that one can type."""

from collections.abc import Sequence
from typing import Any

import click


class HeadedOption(click.Option):
    """An option that help lists under a head of its own."""

    def __init__(self, *args: Any, head: str = "Options", **attributes: Any) -> None:
        super().__init__(*args, **attributes)
        self.head = head


class ExampleCommand(click.Command):
    """A command with examples below its options."""

    def __init__(self, *args: Any, examples: Sequence[str] = (), **options: Any) -> None:
        super().__init__(*args, **options)
        self.examples = tuple(examples)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Options under the heads that they were given, the others last."""
        heads: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                head = getattr(param, "head", "Options")
                heads.setdefault(head, []).append(record)
        for head, records in heads.items():
            with formatter.section(head):
                formatter.write_dl(records, col_max=28)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The examples, each on a line of its own."""
        write_examples(self.examples, formatter)


def write_examples(examples: Sequence[str], formatter: click.HelpFormatter) -> None:
    """A section of lines that are not wrapped."""
    with formatter.section("Examples"):
        for line in examples:
            formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
