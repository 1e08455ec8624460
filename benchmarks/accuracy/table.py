"""The accuracy figures as Markdown, for the pages, and the few sentences that the README keeps."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measured import Measured
from cost_models.calibrate.metrics import Judged

KNOWN_MISSES = Path(__file__).parent / "known_misses.toml"
MISS = 0.3
SHOWN = 3
"""Models of each source in the table; the JSON has all."""
_MARKS = ("<!-- accuracy -->", "<!-- /accuracy -->")

PEERS = (
    ("Calculon", "3.65 %", "38.9 %", "with its own system file for the eight; on vtrain-single "
     "always too fast"),
    ("SimuMax", "4.5 %", "", "operators profiled on that machine"),
    ("llm-analysis", "11.4 %", "", "the efficiency is fed in"),
)  # fmt: skip
"""Other programs, run on the same rows: mean error on the eight, median on vtrain-single."""


def markdown(figures: Mapping[str, Any]) -> str:
    """All tables."""
    parts = [
        f"Errors on runs left out of the fit, {figures['date']}. `python -m benchmarks.accuracy` "
        "rebuilds this section. An error is |predicted / measured - 1|; repeated measurements "
        "differ by 3 to 5 % themselves.",
        _sources(figures),
        _groups(figures),
        _ranking(figures),
        _peers(figures),
        _published(figures["published"]),
        _misses(figures),
    ]
    return "\n\n".join(parts) + "\n"


def headline(figures: Mapping[str, Any]) -> str:
    """What is least known, first: error and coverage by source, each left out of the fit."""
    sources = figures["left_out_source"]["by_source"]
    found = {name: kinds["step_time"] for name, kinds in sources.items()}
    errors = sorted(time["median_error"] for time in found.values())
    worst = max(found, key=lambda name: found[name]["median_error"])
    kept = sum(time["coverage_80"] >= 0.8 for time in found.values())
    missed = "".join(
        f" The slow regime of {name} is not predicted at all: {_percent(slow, 'median_error')}."
        for name, slow in ((n, kinds.get("step_time_slow_regime")) for n, kinds in sources.items())
        if slow
    )
    return (
        f"For a source of runs that the fit has never seen, the median error of the step time is "
        f"between {100 * errors[0]:.1f} % and {100 * errors[-1]:.1f} % ({worst}); half of the "
        f"{len(errors)} measured sources are below {100 * float(np.median(errors)):.1f} %. In only "
        f"{kept} of them do the 80 % intervals hold at least 80 % of the runs.{missed}\n"
    )


def page_with(page: str, table: str) -> str:
    """``page`` with ``table`` between its marks."""
    start, end = _MARKS
    return re.sub(
        f"{re.escape(start)}.*?{re.escape(end)}",
        lambda _: f"{start}\n{table}{end}",
        page,
        flags=re.DOTALL,
    )


def _percent(figures: Mapping[str, Any], name: str) -> str:
    value = figures.get(name)
    return "" if value is None else f"{100 * value:.1f} %"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    rule = "|---" + "|--:" * (len(head) - 1) + "|"
    lines = [head, *rows]
    return "\n".join(
        [f"| {' | '.join(lines[0])} |", rule, *(f"| {' | '.join(row)} |" for row in rows)]
    )


def _sources(figures: Mapping[str, Any]) -> str:
    left, naive = figures["left_out_source"]["by_source"], figures["naive"]["by_source"]
    after = figures["calibrated_on"]["by_source"]
    rows = []
    for name, found in sorted(left.items(), key=lambda item: -item[1]["step_time"]["n"]):
        time = found["step_time"]
        rows.append(
            (
                name,
                str(time["n"]),
                _percent(time, "median_error"),
                _percent(time, "bias"),
                _percent(time, "coverage_80"),
                _percent(naive[name]["step_time"], "median_error"),
                _percent(after.get(name, {}), "median_error"),
                _percent(found["memory"], "median_error"),
            )
        )
        slow = found.get("step_time_slow_regime")
        if slow:
            rows.append(
                (
                    f"{name}, slow regime",
                    str(slow["n"]),
                    _percent(slow, "median_error"),
                    _percent(slow, "bias"),
                    _percent(slow, "coverage_80"),
                    "",
                    "",
                    "",
                )
            )
    head = (
        "source, left out whole",
        "runs",
        "median error",
        "bias",
        "in 80 % interval",
        "fixed MFU",
        f"after {figures['calibrated_on']['runs']} of its runs",
        "memory",
    )
    return _table(head, rows)


_GROUPS = {
    "all": "all runs",
    "complete_layouts": "complete layouts",
    "dense": "dense, 16 bits",
    "moe": "mixture of experts",
    "fp8_and_below": "8 bits and fewer",
}


def _groups(figures: Mapping[str, Any]) -> str:
    left, naive = figures["left_out_source"], figures["naive"]
    groups = {title: (left[key], naive[key]) for key, title in _GROUPS.items()}
    groups |= {f"on {gpu}": (found, None) for gpu, found in left["by_gpu"].items()}
    rows = []
    for title, (found, baseline) in groups.items():
        time = found["step_time"]
        rows.append(
            (
                title,
                str(time["n"]),
                _percent(time, "median_error"),
                _percent(time, "mean_error"),
                _percent(time, "coverage_80"),
                _percent(baseline["step_time"], "median_error") if baseline else "",
            )
        )
    model = figures["left_out_model"]["step_time"]
    rows.append(
        (
            "playbook sweep, one model left out, TP <= 8",
            str(model["n"]),
            _percent(model, "median_error"),
            _percent(model, "mean_error"),
            _percent(model, "coverage_80"),
            "",
        )
    )
    head = ("sources left out", "runs", "median error", "mean", "in 80 % interval", "fixed MFU")
    return _table(head, rows)


def _ranking(figures: Mapping[str, Any]) -> str:
    left = figures["left_out_source"]["all"]
    sweeps, memory, failures = left["sweeps"], left["memory"], left["out_of_memory"]
    return (
        f"Inside {sweeps['n']} sweeps (one model, GPU count, sequence and batch): Spearman "
        f"{sweeps['median_spearman']:.3f} (median), regret of the layout we rank first "
        f"{_percent(sweeps, 'median_regret')} (median) and {_percent(sweeps, 'p90_regret')} "
        f"(90th percentile). Memory of {memory['n']} runs: median error "
        f"{_percent(memory, 'median_error')}, {_percent(memory, 'coverage_80')} inside the 80 % "
        f"interval. Out of memory: balanced accuracy {_percent(failures, 'balanced_accuracy')} "
        f"over {failures['n']} layouts; of {failures['n_called_safe']} called safe, "
        f"{_percent(failures, 'failed_among_safe')} failed."
    )


def _published(found: Mapping[str, Any]) -> str:
    groups = [("all", found["all"]), *found["by_source"].items()]
    groups += [(f"on {gpu}", figures) for gpu, figures in found["by_gpu"].items()]
    rows = [
        (
            title,
            str(figures["n"]),
            _percent(figures, "median_error"),
            _percent(figures, "mean_error"),
            _percent(figures, "bias"),
        )
        for title, figures in groups
    ]
    head = ("published figures, never fitted", "runs", "median error", "mean", "bias")
    return _table(head, rows)


def _peers(figures: Mapping[str, Any]) -> str:
    eight = figures["korthikanti_eight"]
    vtrain = figures["left_out_source"]["by_source"]["vtrain-single"]["step_time"]
    ours = (
        "autopar",
        _percent(eight, "mean_error"),
        _percent(vtrain, "median_error"),
        "both left out of the fit",
    )
    head = ("", f"mean error, {eight['n']} times of arXiv:2205.05198", "vtrain-single", "")
    return _table(head, [ours, *PEERS])


def misses_of(measured: Measured, j: Judged) -> list[dict[str, Any]]:
    """Healthy runs that stay wrong by more than 30 %, grouped by source and model."""
    known = tomllib.loads(KNOWN_MISSES.read_text(encoding="utf-8"))
    ratio = j.predicted_s / j.measured_s
    with np.errstate(invalid="ignore"):
        wrong = ~j.slow & (np.abs(ratio - 1.0) > MISS)
    groups: dict[tuple[str, str], list[int]] = {}
    for i in np.flatnonzero(wrong):
        groups.setdefault((str(j.source[i]), str(j.model[i])), []).append(int(i))
    found = []
    for (source, model), members in sorted(groups.items(), key=lambda item: -len(item[1])):
        runs = [measured.runs[i] for i in members]
        inside = (j.source == source) & (j.model == model) & ~j.slow & np.isfinite(j.measured_s)
        found.append(
            {
                "source": source,
                "model": model,
                "n": len(members),
                "of": int(np.sum(inside)),
                "median_ratio": round(float(np.median(ratio[members])), 4),
                "tp": sorted({run.strategy.tp for run in runs}),
                "pp": sorted({run.strategy.pp for run in runs}),
                "rows": [run.row_id for run in runs],
                "known": known.get(source, {}).get("known", ""),
            }
        )
    return found


def _misses(figures: Mapping[str, Any]) -> str:
    def degrees(values: list[int]) -> str:
        return f"{values[0]}" if len(values) == 1 else f"{values[0]}-{values[-1]}"

    by_source: dict[str, list[Mapping[str, Any]]] = {}
    for miss in figures["misses"]:
        by_source.setdefault(miss["source"], []).append(miss)
    lines = ["Runs that stay wrong by more than 30 %:", ""]
    for source, groups in by_source.items():
        words = ", ".join(
            f"{g['model']} {g['n']} of {g['of']} (predicted / measured {g['median_ratio']:.2f}, "
            f"TP {degrees(g['tp'])}, PP {degrees(g['pp'])})"
            for g in groups[:SHOWN]
        )
        if len(groups) > SHOWN:
            words += f", {sum(g['n'] for g in groups[SHOWN:])} of {len(groups) - SHOWN} more models"
        known = f" {groups[0]['known']}" if groups[0]["known"] else ""
        lines.append(f"- {source}: {words}.{known}")
    return "\n".join(lines)
