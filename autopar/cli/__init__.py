"""The command line: parse, call, print; no arithmetic."""

from autopar.cli.group import CommandGroup, cli

__all__ = ["CommandGroup", "cli", "main"]


def main() -> None:
    """Run the command that the user typed, and exit."""
    cli()
