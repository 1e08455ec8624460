"""Predictions for measured runs, row by row of a CSV, as honest as they can be.

Every row of the table is either priced or says why it cannot be: *unreadable* where a cell
is wrong or contradicts another, *unknowable* where the source leaves out what must be
known.  A knob that a row leaves open takes the cheapest setting that fits.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from cost_models.calibrate.batch import RunBatch, run_batch
from cost_models.calibrate.calibration import Calibration
from cost_models.calibrate.cells import COLUMNS, UnreadableRunError, read_table
from cost_models.calibrate.metrics import Bools, all_figures, judged, summary_of
from cost_models.calibrate.predictions import Predictions, predict_batch
from cost_models.calibrate.recalibration import informative_runs, recalibrated
from cost_models.calibrate.runs import Run, parse_run
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Recompute, Strategy
from cost_models.specs.units import Floats

CALIBRATED_ON = "its measurement was used to calibrate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Why a row is not priced."""

    line: int
    column: str
    reason: str
    hint: str | None
    unreadable: bool
    """A cell is wrong; else the source leaves out what must be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTable:
    """A CSV of runs: each row is a run or a refusal, in the file's order."""

    path: Path
    columns: tuple[str, ...]
    cells: tuple[Mapping[str, str], ...]
    rows: tuple[Run | Refusal, ...]

    @property
    def runs(self) -> list[Run]:
        """The rows that can be priced."""
        return [row for row in self.rows if isinstance(row, Run)]

    @property
    def refusals(self) -> list[Refusal]:
        """The rows that cannot."""
        return [row for row in self.rows if isinstance(row, Refusal)]

    @property
    def unknown_columns(self) -> list[str]:
        """Columns outside the public schema: they are kept and not read."""
        return [name for name in self.columns if name not in COLUMNS]

    def place(self, refusal: Refusal) -> str:
        """``file:line:column: column name: what is wrong``."""
        known = refusal.column in self.columns
        number = self.columns.index(refusal.column) + 1 if known else len(self.columns) + 1
        return f"{self.path}:{refusal.line}:{number}: {refusal.reason}"


def read_run_table(path: Path) -> RunTable:
    """Read every row of a CSV; raises SpecError where the file as a whole cannot be read."""
    header, lines = read_table(path)
    rows: list[Run | Refusal] = []
    for line, cells in lines:
        try:
            rows.append(parse_run(line, cells))
        except SpecError as error:
            rows.append(
                Refusal(
                    line=line,
                    column=str(getattr(error, "column", "")),
                    reason=str(error),
                    hint=error.hint,
                    unreadable=isinstance(error, UnreadableRunError),
                )
            )
    return RunTable(
        path=path,
        columns=tuple(header),
        cells=tuple(cells for _, cells in lines),
        rows=tuple(rows),
    )


def filled_knobs(run: Run, s: Strategy) -> dict[str, Any]:
    """The columns that the row leaves open, and what they were filled with."""
    values: dict[str, Any] = {}
    if "micro_batch_size" in run.open_knobs:
        values["micro_batch"] = s.micro_batch_size
    if "vpp" in run.open_knobs:
        values["vpp"] = s.vpp
    if "recompute" in run.open_knobs:
        some = s.recompute == Recompute.FULL and s.recompute_layers > 0
        values["recompute"] = f"{s.recompute.label}:{s.recompute_layers}" if some else (
            s.recompute.label
        )  # fmt: skip
    return values


def row_documents(table: RunTable, predictions: Predictions, chosen: Bools) -> list[dict[str, Any]]:
    """One document a row of the table, in its order; numbers to six significant digits.

    Runs that were ``chosen`` to calibrate on are not reported.
    """
    documents: list[dict[str, Any]] = []
    index = 0
    for cells, row in zip(table.cells, table.rows, strict=True):
        names: dict[str, Any] = {name: cells.get(name) or "" for name in ("source", "row_id")}
        if isinstance(row, Refusal):
            documents.append(names | {"status": "skipped", "reason": table.place(row)})
        else:
            documents.append(
                names | {"status": "skipped", "reason": CALIBRATED_ON}
                if chosen[index]
                else names | _priced(row, predictions, index)
            )
            index += 1
        if table.unknown_columns:
            documents[-1]["extra"] = {name: cells.get(name, "") for name in table.unknown_columns}
    return documents


def _priced(run: Run, p: Predictions, index: int) -> dict[str, Any]:
    def short(values: Floats) -> float:
        return float(f"{values[index]:.6g}")

    return {
        "status": "ok",
        "reason": p.notes[index],
        "predicted_step_time_s": short(p.step_time_s),
        "step_time_low_s": short(p.step_time_low_s),
        "step_time_high_s": short(p.step_time_high_s),
        "predicted_memory_bytes": round(float(p.memory_bytes[index])),
        "memory_low_bytes": round(float(p.memory_low_bytes[index])),
        "memory_high_bytes": round(float(p.memory_high_bytes[index])),
        "fullest_rank_bytes": round(float(p.fullest_rank_bytes[index])),
        "fit_probability": round(float(p.fit_probability[index]), 6),
        "filled": filled_knobs(run, p.strategies.row(index)) if run.open_knobs else {},
        "measured_step_time_s": run.step_time_s,
        "measured_memory_bytes": run.memory_bytes,
        "measured_out_of_memory": run.out_of_memory,
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """One document a row of the table, and figures over all of them."""

    rows: list[dict[str, Any]]
    summary: dict[str, Any]


def validate_table(
    table: RunTable, calibration: Calibration, *, calibrate_on: int = 0, seed: int = 0
) -> Validation:
    """Predict every run of ``table`` and say how wrong the predictions are.

    With ``calibrate_on``, that many runs of every source adjust the constants for the
    source's other runs and are left out of what is reported; see :func:`chosen_runs`.
    """
    runs = table.runs
    batch = run_batch(runs)
    chosen = chosen_runs(runs, batch, calibrate_on, seed, calibration)
    predictions = predict_batch(batch, calibration)
    if calibrate_on:
        predictions = adjusted(runs, batch, predictions, chosen, calibration)
    rows = row_documents(table, predictions, chosen)
    figures = summary_of(judged(runs, predictions).take(~chosen))
    counts = {
        "rows": len(rows),
        "ok": sum(row["status"] == "ok" for row in rows),
        "unreadable": sum(refusal.unreadable for refusal in table.refusals),
        "unknowable": sum(not refusal.unreadable for refusal in table.refusals),
        "calibrated_on": int(chosen.sum()),
    }
    return Validation(
        rows=rows,
        summary={
            "counts": counts,
            "unknown_columns": table.unknown_columns,
            "calibrate_on": calibrate_on,
            "seed": seed,
            "calibration": dict(calibration.provenance),
            "figures": figures,
        },
    )


def chosen_runs(
    runs: Sequence[Run], batch: RunBatch, n: int, seed: int, calibration: Calibration
) -> Bools:
    """``n`` runs of every source, the first by ``seed`` and the others where they tell most.

    They are drawn from those whose step time is known and healthy.
    """
    chosen = np.zeros(len(runs), dtype=np.bool_)
    if not n:
        return chosen
    usable = np.array([run.step_time_s is not None and not run.slow_regime for run in runs])
    sources = np.array([run.source for run in runs])
    for source in dict.fromkeys(sources[usable].tolist()):
        mine = usable & (sources == source)
        draw = np.random.default_rng([seed, crc32(source.encode())])
        part = batch.take(np.flatnonzero(mine[batch.owner]))
        chosen[informative_runs(calibration, part, n, draw)] = True
    return chosen


def adjusted(
    runs: Sequence[Run],
    batch: RunBatch,
    predictions: Predictions,
    chosen: Bools,
    calibration: Calibration,
) -> Predictions:
    """``predictions`` with every source's runs by constants that its chosen runs adjusted."""
    sources = np.array([run.source for run in runs])
    for source in dict.fromkeys(sources[chosen]):
        mine = sources == source
        few = run_batch([run for run, on in zip(runs, chosen & mine, strict=True) if on])
        own = recalibrated(calibration, few)
        part = batch.take(np.flatnonzero(mine[batch.owner]))
        predictions = predictions.with_runs(np.flatnonzero(mine), predict_batch(part, own))
    return predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnCalibration:
    """A calibration fitted to a table's runs, and what it is worth.

    Both figures are of runs that the constants behind them have not seen: the table is cut
    in two, and each half is predicted by constants fitted to the other.
    """

    calibration: Calibration
    before: dict[str, Any]
    after: dict[str, Any]

    def document(self) -> dict[str, Any]:
        """The figures for programs."""
        return {"schema": "autopar/calibrate/1", "before": self.before, "after": self.after}


def calibrate_table(
    table: RunTable, start: Calibration, provenance: Mapping[str, Any], seed: int = 0
) -> OwnCalibration:
    """Fit ``start`` to all healthy runs of ``table``."""
    runs = table.runs
    batch = run_batch(runs)
    before = predict_batch(batch, start)
    after = before
    healthy = ~np.array([run.slow_regime for run in runs], dtype=np.bool_)
    half = np.random.default_rng(seed).permutation(len(runs)) % 2 == 0
    for part in (half, ~half):
        if part.any() and not part.all():
            seen = batch.take(np.flatnonzero((part & healthy)[batch.owner]))
            fitted = recalibrated(start, seen)
            other = batch.take(np.flatnonzero(~part[batch.owner]))
            after = after.with_runs(np.flatnonzero(~part), predict_batch(other, fitted))
    return OwnCalibration(
        calibration=recalibrated(
            start, batch.take(np.flatnonzero(healthy[batch.owner])), provenance=provenance
        ),
        before=all_figures(judged(runs, before)),
        after=all_figures(judged(runs, after)),
    )
