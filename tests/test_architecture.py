"""The rooms of the house: who may import whom, and that every test says what is true."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BELOW = {
    "cost_models": {"search", "autopar"},
    "search": {"autopar"},
    "autopar": set(),
}
"""What a package must not import: whatever stands above it."""

ROOMS: dict[str, set[str]] = {
    "cost_models/specs": set(),
    "cost_models/counting": {"specs"},
    "cost_models/equations": {"specs", "counting"},
    "cost_models/stages": {"specs", "counting", "equations"},
    "cost_models/catalog": {"specs"},
    "cost_models/calibrate": {"specs", "counting", "equations", "catalog"},
    "search/result": set(),
    "search/versions": set(),
    "search/rules": set(),
    "search/space": {"rules"},
    "search/frontier": {"rules"},
    "search/sweep": {"rules", "space", "frontier", "result"},
    "search/feasible": {"rules", "space", "sweep"},
    "search/stages": {"rules", "space", "frontier", "result"},
    "search/explore": {"rules", "space", "frontier", "sweep", "feasible", "result", "versions"},
    "search/replay": {"rules", "result"},
    "search/plan": {
        *("rules", "space", "frontier", "sweep", "feasible", "stages", "explore"),
        *("result", "versions"),
    },
    "search/pools": {"rules", "space", "frontier", "sweep", "stages", "result", "plan"},
    "autopar/shadow": set(),
    "autopar/launchers": set(),
    "autopar/job": {"launchers"},
    "autopar/api": {"job"},
    "autopar/answers": {"launchers", "job", "api"},
    "autopar/report": {"launchers", "job", "answers"},
    "autopar/cli": {"launchers", "job", "api", "answers", "report"},
    "autopar/__main__": {"cli"},
}
"""Which rooms of its own package a room may import; of the packages below, any."""

MOST_FILES = 12
"""Of one room, at one level: more want a room of their own."""

OWNERS = {
    "ortools": ("search/feasible/", "search/stages/"),
    "optuna": ("search/explore/",),
    "click": ("autopar/cli/",),
    "rich": ("autopar/report/",),
}
"""Where the files that may import a library begin."""


def modules(package: str) -> list[Path]:
    """Source files of a package."""
    return sorted((ROOT / package).rglob("*.py"))


def full_names(path: Path) -> Iterator[str]:
    """Dotted names that a file imports, at its head or inside functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(path: Path) -> Iterator[str]:
    """Top-level names that a file imports."""
    return (name.split(".")[0] for name in full_names(path))


@cache
def module_graph() -> dict[str, set[str]]:
    """Every module of the three packages, with those of them that it imports."""
    files = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for package in BELOW
        for path in modules(package)
    }
    graph: dict[str, set[str]] = {}
    for name, path in files.items():
        found = {full if full in files else full.rpartition(".")[0] for full in full_names(path)}
        graph[name] = {other for other in found if other in files and other != name}
    return graph


def room_of(module: str) -> str:
    """The room that a module is in, or that it is itself."""
    return "/".join(module.split(".")[:2])


def test_no_circle_of_imports() -> None:
    """No module needs, however indirectly, whoever needs it."""
    TopologicalSorter(module_graph()).prepare()


@pytest.mark.parametrize("room", ROOMS)
def test_rooms_import_what_they_may(room: str) -> None:
    """Arrows between rooms are those that are written down, no more."""
    package = room.split("/")[0]
    wrong = sorted(
        f"{module} imports {other}"
        for module, others in module_graph().items()
        if room_of(module) == room
        for other in others
        if other.startswith(f"{package}.")
        and room_of(other) != room
        and room_of(other).split("/")[1] not in ROOMS[room]
    )
    assert not wrong


def test_every_room_is_written_down() -> None:
    """A room that nobody drew has no rules."""
    found = {room_of(m) for m in module_graph() if "." in m}
    assert found == set(ROOMS)


def test_no_room_is_crowded() -> None:
    """What does not fit on a shelf of twelve wants another room."""
    shelves: dict[Path, int] = {}
    for package in (*BELOW, "benchmarks"):
        for path in modules(package):
            shelves[path.parent] = shelves.get(path.parent, 0) + 1
    crowded = {str(f.relative_to(ROOT)) for f, n in shelves.items() if n > MOST_FILES}
    assert not crowded


def test_every_room_has_a_door() -> None:
    """The docstring of a folder says what is inside and what it may import."""
    doors = [
        path.parent
        for package in ("cost_models", "search")
        for path in modules(package)
        if path.name == "__init__.py" and path.parent.parent != ROOT
    ]
    silent = [
        str(folder.relative_to(ROOT))
        for folder in doors
        if "mports" not in str(ast.get_docstring(ast.parse((folder / "__init__.py").read_text())))
    ]
    assert not silent


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


MOST_LINES = 60
"""Of one function; more are two functions."""

LONG = {
    "autopar/launchers/nanotron/files.py::emit",
    "cost_models/calibrate/knobs.py::stated_strategy",
}
"""Longer ones that are still to be parted; the list only shrinks."""


def test_no_function_is_long() -> None:
    """A function fits on a page, but for those that are known not to."""
    long = {
        f"{path.relative_to(ROOT)}::{node.name}"
        for package in BELOW
        for path in modules(package)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and int(node.end_lineno or 0) - node.lineno + 1 > MOST_LINES
    }
    assert long == LONG
