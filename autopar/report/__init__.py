"""What was found, as tables for people and as documents for programs.

Imports ``answers``, ``job`` and the launchers; a new kind of answer gets its view in ``views``.
"""
