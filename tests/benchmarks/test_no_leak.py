"""No run is both fitted and reported."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.accuracy import judging
from benchmarks.accuracy.__main__ import stale_pages
from benchmarks.accuracy.bounds import broken_bounds
from benchmarks.accuracy.table import page_with
from benchmarks.leave_out import Fold, by_model, by_source
from benchmarks.measured import (
    PUBLISHED_CSV,
    RUNS_CSV,
    Bools,
    Measured,
    fit_all,
    load_measured,
)
from cost_models.calibrate.calibration import prior_constants
from cost_models.calibrate.cells import read_table
from cost_models.calibrate.fitting import Fit, fit_memory, fit_step_time
from cost_models.calibrate.validation import read_run_table


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every twelfth run of the repository's, in a file of its own."""
    lines = RUNS_CSV.read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path_factory.mktemp("runs") / "runs.csv"
    path.write_text("".join([lines[0], *lines[1::12]]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def measured(few: Path) -> Measured:
    """The few runs, counted."""
    return load_measured(few)


def test_every_run_is_left_out_of_one_fold(measured: Measured) -> None:
    """The folds by source are a partition, and a fold's source is nowhere else."""
    folds = by_source(measured)
    assert np.all(sum(fold.left_out.astype(int) for fold in folds) == 1)
    for fold in folds:
        assert set(measured.sources[fold.left_out]) == {fold.name}
        assert fold.name not in set(measured.sources[~fold.left_out])


def test_the_folds_by_model_leave_whole_models_out(measured: Measured) -> None:
    """No model of the sweep is on both sides."""
    names = np.array([run.model.name for run in measured.runs])
    sweep = measured.mask(source="ultrascale-playbook")
    for fold in by_model(measured, "ultrascale-playbook"):
        assert np.all(sweep[fold.left_out])
        assert not set(names[fold.left_out]) & set(names[sweep & ~fold.left_out])


def test_a_fold_is_judged_by_a_fit_that_never_saw_it(
    measured: Measured, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the fit is given and what is reported have no run in common."""
    given: list[Bools] = []
    everything = np.ones(len(measured.runs), dtype=bool)

    def quick(
        measured: Measured,
        trained: Bools,
        *,
        start: tuple[Fit, Fit] | None = None,
        max_steps: int = 1,
    ) -> tuple[Fit, Fit]:
        del start, max_steps
        given.append(trained)
        return fits

    fits = fit_all(measured, everything, max_steps=1)
    monkeypatch.setattr(judging, "load_measured", lambda: measured)
    monkeypatch.setattr(judging, "fit_all", quick)
    fold: Fold = by_source(measured)[0]
    found = judging.judge(fold, fits, [], adjust=True)
    assert not np.any(given[0] & fold.left_out)
    assert np.all(np.isnan(found.inside_time[fold.left_out]))
    for chosen, _ in found.adjusted:
        assert np.all(fold.left_out[chosen])
        assert chosen.sum() == judging.CALIBRATE_ON


@pytest.mark.parametrize("fit", [fit_step_time, fit_memory])
def test_a_fit_does_not_look_at_what_is_left_out(measured: Measured, fit: object) -> None:
    """Its picks are trained runs alone."""
    trained = measured.sources != "bigscience-tr11"
    assert callable(fit)
    found = fit(measured.batch, trained & measured.healthy, prior_constants(), max_steps=1)
    assert np.all(trained[measured.batch.owner[found.picked]])
    assert "bigscience-tr11" not in found.source_effects


def test_the_width_of_an_interval_is_what_holds_four_fifths() -> None:
    """Residuals of a known spread, in sources of different sizes."""
    random = np.random.default_rng(0)
    sources = np.array(["a"] * 900 + ["b"] * 100)
    residuals = random.normal(0.0, 0.2, 1000)
    variance = judging.left_out_variance(residuals, np.full(1000, 0.01), sources, 0.05)
    assert np.sqrt(variance + 0.01) == pytest.approx(0.2, rel=0.1)


def test_a_bound_that_is_broken_is_said() -> None:
    """A figure may be neither above its most nor below its least."""
    figures = {"a": {"error": 0.2, "rho": 0.9}}
    bounds = [{"figure": "a/error", "most": 0.1}, {"figure": "a/rho", "least": 0.8}]
    assert broken_bounds(figures, bounds) == ["a/error is 0.2, bound: at most 0.1"]


def test_only_the_marked_part_of_a_page_is_written() -> None:
    """What stands before and behind stays."""
    page = "before\n<!-- accuracy -->\nold\n<!-- /accuracy -->\nbehind\n"
    found = page_with(page, "new\n")
    assert found == "before\n<!-- accuracy -->\nnew\n<!-- /accuracy -->\nbehind\n"
    assert page_with(found, "new\n") == found


def test_pages_say_what_the_written_figures_say() -> None:
    """README, accuracy page and picture are those of ``results/accuracy.json``."""
    assert not stale_pages()


def test_published_figures_are_read_and_not_among_the_fitted_runs() -> None:
    """Each has a citation, can be priced, and no fitted run has its GPU, layout and rate."""
    table = read_run_table(PUBLISHED_CSV)
    assert not table.refusals
    assert all(row["source_ref"] for row in table.cells)
    names = ("gpu", "num_gpus", "hidden", "n_layers", "dp", "tp", "pp", "precision",
             "tokens_per_s_per_gpu", "tflops_per_gpu_reported")  # fmt: skip
    fitted = {tuple(row.get(name, "") for name in names) for _, row in read_table(RUNS_CSV)[1]}
    assert not fitted & {tuple(row[name] for name in names) for row in table.cells}
