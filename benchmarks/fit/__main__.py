"""Rebuild the shipped calibration from the runs in the repository.

``python -m benchmarks.fit`` writes ``cost_models/catalog/calibrations/calibration.json``; with
``--check`` it compares instead, and exits with 1 where the file would change.
"""

import hashlib
import json
import math
import sys
from typing import Any

import numpy as np

from autopar.report.files import write_text
from benchmarks.fit.slow_regime import wrong_rows
from benchmarks.leave_out import by_source, left_out_predictions
from benchmarks.measured import RUNS_CSV, Measured, Predicted, fit_all, load_measured, predict
from cost_models.calibrate.calibration import SHIPPED, Spread, to_json
from cost_models.calibrate.fitting import calibration_of
from cost_models.specs.units import Floats

NORMAL_QUARTILE = 0.6745
ROUNDING = 5e-3
"""What another machine's arithmetic may move a fitted number by."""


def _robust_sd(values: Floats) -> float:
    """Standard deviation from the median absolute deviation."""
    return float(np.median(np.abs(values - np.median(values))) / NORMAL_QUARTILE)


def _spread(measured: Measured, log_ratio: Floats, inside: Floats) -> Spread:
    """Between runs of a source from the fit itself, between sources from left-out fits."""
    within, between = [], []
    for source in dict.fromkeys(measured.sources):
        mask = measured.mask(source=source) & measured.healthy
        left, seen = log_ratio[mask & np.isfinite(log_ratio)], inside[mask & np.isfinite(inside)]
        if len(left) >= 3:
            between.append(float(np.median(left)))
            within.append(_robust_sd(seen))
    residual = float(np.median(within))
    source = float(np.median(np.abs(between)) / NORMAL_QUARTILE)
    total = np.sqrt(residual**2 + source**2)
    usable = np.isfinite(log_ratio) & measured.healthy
    size = {
        s: int(np.sum(usable & measured.mask(source=s))) for s in dict.fromkeys(measured.sources)
    }
    weight = np.array([1.0 / np.sqrt(size[s]) for s in measured.sources[usable]])
    z = np.abs(log_ratio[usable]) / total
    order = np.argsort(z)
    covered = np.cumsum(weight[order]) / np.sum(weight)
    edge = float(z[order][np.searchsorted(covered, 0.8)])
    return Spread(residual_sd=residual, source_sd=source, scale=edge / 1.2816)


def build(measured: Measured) -> str:
    """The calibration file's text."""
    everything = np.ones(len(measured.runs), dtype=bool)
    fits = fit_all(measured, everything)
    inside = predict(measured, calibration_of(*fits))
    outside: Predicted = left_out_predictions(measured, by_source(measured), fits)
    time_spread = _spread(
        measured,
        np.log(measured.step_time_s / outside.step_time_s),
        np.log(measured.step_time_s / inside.step_time_s),
    )
    memory_spread = _spread(
        measured,
        np.log(measured.memory_bytes / outside.reported_bytes),
        np.log(measured.memory_bytes / inside.reported_bytes),
    )
    digest = hashlib.sha256(RUNS_CSV.read_bytes()).hexdigest()
    provenance = {
        "runs": "benchmarks/data/runs.csv",
        "runs_sha256": digest,
        "runs_used_for_time": int(np.sum(np.isfinite(measured.step_time_s) & measured.healthy)),
        "runs_used_for_memory": int(np.sum(np.isfinite(measured.memory_bytes) & measured.healthy)),
        "sources": sorted(set(measured.sources.tolist())),
        "fitted_by": "python -m benchmarks.fit",
        "date": "2026-11-27",
    }
    calibration = calibration_of(
        *fits, time_spread=time_spread, memory_spread=memory_spread, provenance=provenance
    )
    return json.dumps(to_json(calibration), indent=1) + "\n"


def check(shipped: str, rebuilt: str) -> int:
    """0 where the file rebuilds, bit for bit or, on another machine's arithmetic, nearly."""
    if shipped == rebuilt:
        print("calibration rebuilds bit for bit")
        return 0
    if nearly_equal(json.loads(shipped), json.loads(rebuilt)):
        print("calibration rebuilds, but for rounding")
        return 0
    print("calibration has changed: run python -m benchmarks.fit")
    return 1


def nearly_equal(one: Any, other: Any) -> bool:
    """The same document, numbers within :data:`ROUNDING` of each other."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=ROUNDING, abs_tol=ROUNDING)
    if isinstance(one, list) and isinstance(other, list):
        pairs = zip(one, other, strict=False)
        return len(one) == len(other) and all(nearly_equal(a, b) for a, b in pairs)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(nearly_equal(one[k], other[k]) for k in one)
    return bool(one == other)


def main() -> int:
    """Write or check the shipped calibration."""
    measured = load_measured()
    if wrong := wrong_rows(measured.runs):
        print(f"{RUNS_CSV}: column slow_regime is wrong in rows {', '.join(wrong)}")
        return 1
    text = build(measured)
    if "--check" in sys.argv[1:]:
        return check(SHIPPED.read_text(encoding="utf-8") if SHIPPED.exists() else "{}", text)
    write_text("calibration", str(SHIPPED), text)
    print(f"wrote {SHIPPED}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
