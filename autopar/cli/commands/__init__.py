"""One module per command: parse, ask, print; no arithmetic.

A new command is a module here and a line in ``autopar.cli.group.COMMANDS``; those that list
what is known by name are in ``catalog``.
"""
