"""How fast strategies are priced and questions answered.

``python -m benchmarks.speed`` prices the same strategies by the same equations one at a
time, as rows of a flat table, and as grids whose axes broadcast, on one thread and on two.
Then it takes the time to exact frontiers, a fresh interpreter's start included: the median
of three.  It writes ``results/speed.json`` and ``results/speed.md``; ``--once`` asks every
question once and writes nothing.
"""

import datetime
import json
import os
import platform
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

from autopar.job.inputs import as_cluster, as_model, as_precision, as_workload, constants_for
from autopar.report.files import write_text
from cost_models.specs.strategy import Strategies
from search.rules import Problem
from search.space.space import Space
from search.sweep.branch_and_bound import SweepProblem
from search.sweep.census import take_census
from search.sweep.knob_axes import grid

RESULTS = Path(__file__).parent / "results"
QUESTIONS = (
    ("70b", 512, "h100", 8192, 1024, "core"),
    ("70b", 512, "h100", 8192, 1024, "full"),
    ("405b", 16384, "h100", 8192, 2048, "core"),
    ("405b", 16384, "h100", 8192, 2048, "full"),
    ("deepseek-v3", 2048, "h800", 4096, 15360, "core"),
    ("deepseek-v3", 2048, "h800", 4096, 15360, "full"),
)
PRICED = (QUESTIONS[1], QUESTIONS[5])
CHUNK = 1 << 19
"""Strategies priced in one call, as the sweep does."""
CHUNKS = 12
REPEATS = 3
_ANSWER = """
import autopar, json, resource
r = autopar.search({model!r}, {gpus}, gpu={gpu!r}, seq_len={length}, global_batch={batch},
                   space={space!r})
used = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps(dict(space=r.counts.space, legal=r.counts.legal, fits=r.counts.fits,
                      priced=r.counts.priced, cut_by=r.counts.cut_by, frontier=len(r.frontier),
                      complete=r.certificate.complete, cpu_s=used.ru_utime + used.ru_stime,
                      peak_bytes=used.ru_maxrss * 1024)))
"""


def _fastest_s(work: Callable[[], object]) -> float:
    """The best of three."""
    times = []
    for _ in range(REPEATS):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return min(times)


def rates(model: str, gpus: int, gpu: str, length: int, batch: int) -> list[dict[str, Any]]:
    """Step time and peak memory of one grid of the model's full space, in four ways."""
    spec, cluster = as_model(model), as_cluster(None, gpu, gpus)
    workload = as_workload(spec, cluster, seq_len=length, global_batch=batch)
    problem = Problem.of(spec, cluster, workload)
    q = SweepProblem(problem, constants_for(cluster, workload.framework))
    census = take_census(problem, Space.full(problem, as_precision(None, cluster)))
    whole = max(census.grids, key=lambda g: g.count())
    per_layout = int(np.prod([size for name, size in whole.sizes.items() if name != "layout"]))
    step = max(1, CHUNK // per_layout)
    rows = [np.arange(k * step, (k + 1) * step) % len(whole.layouts) for k in range(CHUNKS)]
    boxes = [grid(g.layouts, g.axes) for g in map(whole.rows, rows)]
    box = boxes[0]
    flat = box.take(np.linspace(0, len(box) - 1, 65536).astype(np.int64))
    few = [flat.take(np.array([index])) for index in range(0, len(flat), 512)]

    def price(strategies: Strategies) -> None:
        q.seconds(strategies, bound=False)
        q.bytes(strategies)

    def in_turn(batches: Sequence[Strategies]) -> float:
        return _fastest_s(lambda: list(map(price, batches)))

    def side_by_side(batches: Sequence[Strategies]) -> float:
        with ThreadPoolExecutor(2) as pool:
            return _fastest_s(lambda: list(pool.map(price, batches)))

    ways = (
        ("one at a time, in a Python loop", few, in_turn),
        ("rows of a table", [flat], in_turn),
        ("grids that broadcast", boxes, in_turn),
        ("grids that broadcast, two threads", boxes, side_by_side),
    )
    counts = [sum(map(len, batches)) for _, batches, _ in ways]
    speeds = [count / run(batches) for count, (_, batches, run) in zip(counts, ways, strict=True)]
    return [
        {"how": how, "strategies": n, "per_second": speed, "times_the_loop": speed / speeds[0]}
        for (how, _, _), n, speed in zip(ways, counts, speeds, strict=True)
    ]


def answer(question: tuple[str, int, str, int, int, str], repeats: int) -> dict[str, Any]:
    """What a fresh interpreter finds and takes; times and peak are medians."""
    names = ("model", "gpus", "gpu", "length", "batch", "space")
    asked = dict(zip(names, question, strict=True))
    runs = []
    for _ in range(repeats):
        start = perf_counter()
        done = subprocess.run(  # noqa: S603
            [sys.executable, "-c", _ANSWER.format(**asked)],
            capture_output=True,
            text=True,
            check=True,
        )
        runs.append(json.loads(done.stdout) | {"wall_s": perf_counter() - start})
    found: dict[str, Any] = {**runs[0], "question": asked}
    for name in ("wall_s", "cpu_s", "peak_bytes"):
        found[name] = median(run[name] for run in runs)
    return found


def _processor() -> str:
    """What Linux calls the processor; elsewhere what Python does."""
    about = Path("/proc/cpuinfo")
    lines = about.read_text(encoding="utf-8").splitlines() if about.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def measured(repeats: int) -> dict[str, Any]:
    """All figures, with what they were measured on."""
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "versions": {name: version(name) for name in ("autopar", "numpy")}
        | {"python": platform.python_version()},
        "processor": _processor(),
        "n_cores": os.cpu_count(),
        "load_before": load,
        "repeats": repeats,
        "answers": [answer(question, repeats) for question in QUESTIONS],
        "rates": [{"question": question[:3], "ways": rates(*question[:5])} for question in PRICED],
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


def markdown(figures: dict[str, Any]) -> str:
    """The figures as tables."""
    versions = ", ".join(f"{name} {number}" for name, number in figures["versions"].items())
    load = figures["load_before"]
    lines = [
        f"Measured {figures['date']} by `python -m benchmarks.speed`: {versions}; "
        f"{figures['n_cores']} x {figures['processor']}"
        + ("." if load is None else f", load {load:.1f} before it began."),
        "",
        "## Time to the exact frontier",
        "",
        f"A fresh interpreter's start included; median of {figures['repeats']}. "
        "What fits was priced, or cut by the bound of a floor, an ideal point or a step time.",
        "",
        "| question | raw space | legal | fit | priced | cut: floor | ideal point | step time "
        "| frontier | wall | CPU | peak |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for found in figures["answers"]:
        asked, cut = found["question"], found["cut_by"]
        rows = f"{found['frontier']}" + ("" if found["complete"] else " (not complete)")
        cuts = " | ".join(
            f"{cut.get(name, 0):.3g}" for name in ("floor", "ideal_point", "step_time_bound")
        )
        lines.append(
            f"| {asked['model']}, {asked['gpus']:,} {asked['gpu']}, {asked['space']} "
            f"| {found['space']:.2g} | {found['legal']:.4g} | {found['fits']:.4g} "
            f"| {found['priced']:,} | {cuts} | {rows} | {found['wall_s']:.1f} s "
            f"| {found['cpu_s']:.1f} s | {found['peak_bytes'] / 2**20:.0f} MiB |"
        )
    lines += [
        "",
        "## Strategies priced per second",
        "",
        "Step time and peak memory by the same equations; the best of three.",
        "",
        "| full space of | how | strategies | per second | times the loop |",
        "|---|---|--:|--:|--:|",
    ]
    for priced in figures["rates"]:
        model, gpus, gpu = priced["question"]
        lines += [
            f"| {model}, {gpus:,} {gpu} | {way['how']} | {way['strategies']:,} "
            f"| {way['per_second']:,.0f} | {way['times_the_loop']:,.0f} |"
            for way in priced["ways"]
        ]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, print, and write unless told ``--once``."""
    once = "--once" in sys.argv[1:]
    figures = measured(1 if once else REPEATS)
    table = markdown(figures)
    print(table, end="")
    if not once:
        write_text("results", str(RESULTS / "speed.json"), json.dumps(figures, indent=1) + "\n")
        write_text("results", str(RESULTS / "speed.md"), table)


if __name__ == "__main__":
    main()
