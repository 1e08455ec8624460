"""How wrong the cost model is on runs that it was not fitted to.

``python -m benchmarks.accuracy`` leaves out one source after the other, and one model after
the other of the largest sweep, judges each by a fit that never saw it, and writes
``results/accuracy.json``, ``results/accuracy.md`` and the README's table.  With ``--check``
nothing is written, and the exit code is 1 where a figure is worse than its bound in
``bounds.toml`` or the README's table is not the written one.  ``--set-bounds``
also states new bounds: what is reached, with a little slack.
"""

import json
import sys
import tomllib
from pathlib import Path

from autopar.report.files import write_text
from benchmarks.accuracy.bounds import bounds_of, broken_bounds
from benchmarks.accuracy.figures import accuracy
from benchmarks.accuracy.table import markdown, readme_with

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results"
JSON, MARKDOWN = RESULTS / "accuracy.json", RESULTS / "accuracy.md"
BOUNDS = HERE / "bounds.toml"
README = HERE.parents[1] / "README.md"


def main() -> int:
    """Write the figures, or check them."""
    figures = accuracy()
    bounds = tomllib.loads(BOUNDS.read_text(encoding="utf-8"))["bound"] if BOUNDS.exists() else []
    table = markdown(figures)
    broken = broken_bounds(figures, bounds)
    for line in broken:
        print(line)
    if "--check" in sys.argv[1:]:
        readme = README.read_text(encoding="utf-8")
        if readme_with(readme, MARKDOWN.read_text(encoding="utf-8")) != readme:
            print(f"the README's table is not that of {MARKDOWN}")
            return 1
        return 1 if broken else 0
    if "--set-bounds" in sys.argv[1:]:
        write_text("accuracy", str(BOUNDS), bounds_of(figures))
    JSON.parent.mkdir(exist_ok=True)
    write_text("accuracy", str(JSON), json.dumps(figures, indent=1) + "\n")
    write_text("accuracy", str(MARKDOWN), table)
    write_text("accuracy", str(README), readme_with(README.read_text(encoding="utf-8"), table))
    print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
