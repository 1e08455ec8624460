"""Strategies as files that training launchers accept, and such files as strategies."""
