"""How wrong the cost model is on runs that it was not fitted to.

``python -m benchmarks.accuracy`` leaves out one source after the other, and one model after
the other of the largest sweep, judges each by a fit that never saw it, and writes
``results/accuracy.json``, ``results/accuracy.md``, the tables and the picture of
``docs/accuracy.md`` and the README's sentence.  With ``--check`` nothing is written, and the
exit code is 1 where a figure is worse than its bound in ``bounds.toml`` or a page does not
say what the written figures say.  ``--set-bounds`` also states new bounds: what is reached,
with a little slack.  ``--pages`` writes the pages again from the written figures, in a second.
"""

import json
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autopar.report.files import write_text
from benchmarks.accuracy.bounds import bounds_of, broken_bounds
from benchmarks.accuracy.figures import accuracy
from benchmarks.accuracy.picture import picture
from benchmarks.accuracy.table import headline, markdown, page_with

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
JSON, MARKDOWN = RESULTS / "accuracy.json", RESULTS / "accuracy.md"
BOUNDS = HERE / "bounds.toml"
ROOT = HERE.parents[1]


def pages(figures: Mapping[str, Any]) -> dict[Path, str]:
    """What every page that shows the figures is to say."""
    readme, docs = ROOT / "README.md", ROOT / "docs" / "accuracy.md"
    return {
        MARKDOWN: markdown(figures),
        docs: page_with(docs.read_text(encoding="utf-8"), markdown(figures)),
        readme: page_with(readme.read_text(encoding="utf-8"), headline(figures)),
        ROOT / "docs" / "accuracy.svg": picture(figures),
    }


def stale_pages() -> list[str]:
    """Pages that do not say what the written figures say, in words."""
    written = json.loads(JSON.read_text(encoding="utf-8"))
    return [
        f"{path.relative_to(ROOT)} does not say what {JSON.name} says: run with --pages"
        for path, text in pages(written).items()
        if path.read_text(encoding="utf-8") != text
    ]


def write_pages(figures: Mapping[str, Any]) -> None:
    """Every page as the figures want it."""
    for path, text in pages(figures).items():
        write_text("accuracy", str(path), text)


def main() -> int:
    """Write the figures, or check them."""
    if "--pages" in sys.argv[1:]:
        write_pages(json.loads(JSON.read_text(encoding="utf-8")))
        return 0
    figures = accuracy()
    bounds = tomllib.loads(BOUNDS.read_text(encoding="utf-8"))["bound"] if BOUNDS.exists() else []
    broken = broken_bounds(figures, bounds)
    if "--check" in sys.argv[1:]:
        broken += stale_pages()
    for line in broken:
        print(line)
    if "--check" in sys.argv[1:]:
        return 1 if broken else 0
    if "--set-bounds" in sys.argv[1:]:
        write_text("accuracy", str(BOUNDS), bounds_of(figures))
    JSON.parent.mkdir(exist_ok=True)
    write_text("accuracy", str(JSON), json.dumps(figures, indent=1) + "\n")
    write_pages(figures)
    print(markdown(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
