"""Where a field stands in a YAML or JSON text, and which field stands there twice.

JSON is read as YAML too; a text that YAML cannot read has no lines to name.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import yaml

from autopar.launchers.knobs import printable


@dataclass(frozen=True, slots=True)
class Twice:
    """A field that is given twice in one table, and the lines of both."""

    path: str
    line: int
    first: int


def line_of(text: str, path: str) -> int | None:
    r"""Line of the field at a dotted path, or of the table that it is missing from.

    >>> line_of("tokens:\n  micro_batch_size: 1\n", "tokens.micro_batch_size")
    2
    """
    node, line = _root(text), None
    for key in path.split("."):
        pairs = node.value if isinstance(node, yaml.MappingNode) else ()
        found = next((pair for pair in pairs if pair[0].value == key), None)
        if found is None:
            break
        line, node = found[0].start_mark.line + 1, found[1]
    return line


def top_lines(text: str) -> dict[str, int]:
    """Lines of the fields of the outermost table."""
    root = _root(text)
    pairs = root.value if isinstance(root, yaml.MappingNode) else ()
    return {str(key.value): key.start_mark.line + 1 for key, _ in pairs}


def given_twice(text: str) -> Twice | None:
    """The first field, in the order of the text, whose table has it already."""
    return next(_twice(_root(text), "", set()), None)


def _root(text: str) -> yaml.Node | None:
    try:
        # a tab is a blank in JSON, and nothing in YAML
        node = yaml.compose(text.replace("\t", " "), Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError):
        return None
    return node if isinstance(node, yaml.Node) else None


def _twice(node: yaml.Node | None, prefix: str, seen: set[int]) -> Iterator[Twice]:
    """Fields given twice in the tables below; ``seen`` are nodes that anchors lead back to."""
    if not isinstance(node, yaml.CollectionNode) or id(node) in seen:
        return
    seen.add(id(node))
    if not isinstance(node, yaml.MappingNode):
        for item in node.value:
            yield from _twice(item, prefix, seen)
        return
    lines: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode):
            continue
        path, line = f"{prefix}{printable(key.value)}", key.start_mark.line + 1
        if key.value in lines:
            yield Twice(path, line, lines[key.value])
        lines[key.value] = line
        yield from _twice(value, f"{path}.", seen)
