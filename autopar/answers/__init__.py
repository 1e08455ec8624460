"""Answers beyond a search: explained, improved, in several sizes, on mixed pools, as files.

Imports ``job`` and the launchers.  Numbers leave here; words are put together in ``report``.
"""
