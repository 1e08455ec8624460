"""The rooms of the house: who may import whom, and that every test says what is true."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "cost_models": {"search", "autopar"},
    "search": {"autopar"},
    "autopar": set(),
}
"""What a package must not import: whatever stands above it."""

OWNERS = {
    "ortools": ("search/feasible", "search/stage", "search/layout_"),
    "optuna": ("search/explore",),
    "click": ("autopar/cli/",),
    "rich": ("autopar/report/",),
}
"""Where the files that may import a library begin."""


def modules(package: str) -> list[Path]:
    """Source files of a package."""
    return sorted((ROOT / package).rglob("*.py"))


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a file imports, at its head or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield str(node.module).split(".")[0]


@pytest.mark.parametrize("package", BELOW)
def test_imports_flow_one_way(package: str) -> None:
    """cost_models knows neither of the others, search never the front."""
    wrong = [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in modules(package)
        for name in imported(path)
        if name in BELOW[package]
    ]
    assert not wrong


@pytest.mark.parametrize("library", OWNERS)
def test_each_library_has_its_room(library: str) -> None:
    """Solvers, samplers, options and colours are met in one place each."""
    wrong = [
        str(path.relative_to(ROOT))
        for package in BELOW
        for path in modules(package)
        if library in imported(path) and not str(path.relative_to(ROOT)).startswith(OWNERS[library])
    ]
    assert not wrong


def test_the_public_package_is_light() -> None:
    """``import autopar`` and its commands' list name no heavy library at their head."""
    heavy = {"numpy", "scipy", "ortools", "optuna", "rich", "cost_models", "search"}
    for name in ("autopar/__init__.py", "autopar/__main__.py", "autopar/cli/__init__.py"):
        tree = ast.parse((ROOT / name).read_text(encoding="utf-8"))
        heads = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        names = {str(getattr(node, "module", "") or node.names[0].name) for node in heads}
        assert not {full.split(".")[0] for full in names} & heavy


def test_every_test_says_what_is_true() -> None:
    """Each test and each test file has a sentence."""
    silent = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if not ast.get_docstring(tree):
            silent.append(str(path.relative_to(ROOT)))
        silent += [
            f"{path.relative_to(ROOT)}::{node.name}"
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            and node.name.startswith("test_")
            and not ast.get_docstring(node)
        ]
    assert not silent


def test_tests_are_no_packages() -> None:
    """A package ``tests/search`` would stand in front of the real one."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_no_drawer_for_everything() -> None:
    """A module is named after what it does."""
    drawers = {"utils.py", "helpers.py", "common.py", "base.py", "misc.py"}
    found = [path for package in BELOW for path in modules(package) if path.name in drawers]
    assert not found
