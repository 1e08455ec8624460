"""The slow regime of one published sweep: told from measured times, kept in a column."""

from benchmarks.fit.slow_regime import slow_regime, wrong_rows
from benchmarks.measured import load_measured
from tests.cost_models.run_rows import run_of

SWEEP = {"source": "ultrascale-playbook"}


def test_only_the_known_sweep_has_a_slow_regime() -> None:
    """Over 0.25 s a micro-batch beyond the host's 11.4 ms a layer is slow there, and nowhere else.

    Nine rounds of twelve layers: 1.2 s at the host's pace, 2.25 s more at the border.
    """
    times = ("1.2", "3.4", "3.6", "10")
    assert slow_regime([run_of(**SWEEP, step_time_s=t) for t in times]) == [
        False,
        False,
        True,
        True,
    ]
    assert not any(slow_regime([run_of(step_time_s=time) for time in times]))


def test_a_slow_run_is_known_without_siblings_and_a_busy_one_is_not_slow() -> None:
    """Where all runs of a layout are slow, none passes for healthy; large layers take long."""
    assert slow_regime([run_of(**SWEEP, step_time_s="10")]) == [True]
    wide = {"hidden": "16384", "n_heads": "128"}
    assert slow_regime([run_of(**SWEEP, **wide, step_time_s="10")]) == [False]


def test_without_a_pipeline_siblings_decide() -> None:
    """Twice the time of its sibling and 0.4 s a micro-batch more."""
    flat = {"dp": "8", "pp": "1", "schedule": ""} | SWEEP
    runs = [run_of(**flat, step_time_s=time) for time in ("4", "9", "12")]
    assert slow_regime(runs) == [False, False, True]


def test_the_shipped_column_is_what_the_times_say() -> None:
    """Every run, and a flag more or less is found."""
    runs = load_measured().runs
    assert wrong_rows(runs) == []
    assert wrong_rows([run_of(**SWEEP, step_time_s="10")]) == ["1"]
