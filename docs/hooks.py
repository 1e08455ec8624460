"""What the site takes from the code when it is built: the equations, module by module."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
EQUATIONS = "<!-- equations -->"
ROOMS = ("cost_models/equations", "cost_models/counting", "cost_models/stages")


def on_page_markdown(markdown: str, **_: Any) -> str:
    """The page, with the docstrings of the cost model where it asks for them."""
    if EQUATIONS not in markdown:
        return markdown
    return markdown.replace(EQUATIONS, "\n".join(line for room in ROOMS for line in _room(room)))


def _room(room: str) -> Iterator[str]:
    yield f"## {room.replace('/', '.')}"
    yield from ("", " ".join(_docstring(ROOT / room / "__init__.py").split()), "")
    for path in sorted((ROOT / room).rglob("*.py")):
        if path.name != "__init__.py":
            yield from _module(path, path.relative_to(ROOT / room))


def _module(path: Path, name: Path) -> Iterator[str]:
    """Head, docstring as it is written, and its public functions and classes in a word."""
    first, _, rest = _docstring(path).partition("\n")
    yield from (f"### {'.'.join(name.with_suffix('').parts)}", "", first, "")
    if rest.strip():
        yield from ("```text", rest.strip("\n"), "```", "")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        known = isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
        said = ast.get_docstring(node) if known else None
        if said:
            summary = " ".join(said.partition("\n\n")[0].split())
            yield f"- `{node.name}`: {summary}"
    yield ""


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
