"""A calibration survives its file, refuses damaged ones, and learns from a few runs."""

import json
from copy import deepcopy
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cost_models.calibrate.batch import run_batch
from cost_models.calibrate.calibration import (
    SHIPPED,
    Effect,
    from_json,
    levels_of,
    load_calibration,
    load_constants,
    load_priors,
    prior_constants,
    relatives,
    to_json,
)
from cost_models.calibrate.predictions import predict_batch, predict_runs
from cost_models.calibrate.recalibration import informative_runs, recalibrated
from cost_models.calibrate.runs import Run, parse_run
from cost_models.catalog.frameworks import framework_names, load_framework
from cost_models.catalog.gpus import gpu_names, load_gpu
from cost_models.equations.constants import Constants
from cost_models.specs.errors import SpecError

SHIPPED_CALIBRATION = load_calibration()


def a_run(**changes: str) -> Run:
    """A small model on eight GPUs."""
    cells = {
        "source": "mine",
        "gpu": "h100",
        "num_gpus": "8",
        "model": "llama3-8b",
        "seq_len": "4096",
        "global_batch_seqs": "64",
        "micro_batch": "1",
        "dp": "8",
        "tp": "1",
        "pp": "1",
        "sharding": "zero1",
        "recompute": "full",
        "precision": "bf16",
        "framework": "megatron-lm",
    }
    return parse_run(2, cells | changes)


LAYOUTS = (("8", "1", "1"), ("4", "2", "1"), ("2", "4", "1"), ("1", "8", "1"), ("4", "1", "2"),
           ("2", "2", "2"), ("1", "2", "4"), ("2", "1", "4"))  # fmt: skip


def my_runs(factor: float) -> list[Run]:
    """Runs of a machine that takes ``factor`` times what is predicted."""
    layouts = [{"dp": dp, "tp": tp, "pp": pp} for dp, tp, pp in LAYOUTS]
    plain = [a_run(**layout, schedule="1F1B") for layout in layouts]
    times = factor * predict_runs(plain, SHIPPED_CALIBRATION).step_time_s
    return [
        a_run(**layout, schedule="1F1B", step_time_s=repr(float(time)))
        for layout, time in zip(layouts, times, strict=True)
    ]


def test_a_calibration_survives_its_file(tmp_path: Path) -> None:
    """Written, read and written again it is the same text."""
    text = json.dumps(to_json(SHIPPED_CALIBRATION))
    again = from_json(json.loads(text), tmp_path)
    assert again.effects == SHIPPED_CALIBRATION.effects
    assert again.values == pytest.approx(SHIPPED_CALIBRATION.values, rel=1e-4)
    assert json.dumps(to_json(again)) == text


def damaged(document: dict[str, Any], key: str) -> dict[str, Any]:
    """The shipped document with one thing wrong."""
    document = deepcopy(document)
    if key == "schema":
        document["schema"] = "autopar/search/1"
    elif key == "row":
        document["effects"][0] = ["gemm_fraction"]
    elif key == "number":
        document["effects"][0][3] = "much"
    elif key == "length":
        document["correlation_lower"] = document["correlation_lower"][:-1]
    else:
        del document[key]
    return document


@pytest.mark.parametrize(
    "key", ["schema", "row", "number", "length", "effects", "time_spread", "provenance"]
)
def test_a_damaged_calibration_is_refused(tmp_path: Path, key: str) -> None:
    """The message begins with the file."""
    path = tmp_path / "calibration.json"
    path.write_text(json.dumps(damaged(json.loads(SHIPPED.read_text()), key)))
    with pytest.raises(SpecError, match=r"calibration\.json: (not a|damaged) calibration"):
        load_calibration(path)


def test_files_that_hold_no_json_are_refused(tmp_path: Path) -> None:
    """Half a file, and none at all."""
    path = tmp_path / "calibration.json"
    path.write_text(SHIPPED.read_text()[:1000])
    with pytest.raises(SpecError, match="not valid JSON"):
        load_calibration(path)
    with pytest.raises(SpecError, match="cannot read"):
        load_calibration(tmp_path / "nowhere.json")


def test_every_gpu_and_framework_has_constants() -> None:
    """One that no run speaks of takes its family's."""
    for gpu in ("h100", "mi300x", "b200"):
        found = load_constants(load_gpu(gpu), load_framework("megatron-lm"))
        assert 0 < found.gemm_fraction < 1
        assert found.straggler > 0


GPUS_AND_FRAMEWORKS = [(gpu, name) for gpu in gpu_names() for name in framework_names()]


def test_every_constant_has_a_unit_bounds_and_a_source() -> None:
    """In the priors' file, and none beside them; the medians lie inside."""
    priors = {prior.name: prior for prior in load_priors()}
    assert set(priors) == {f.name for f in fields(Constants)}
    for prior in priors.values():
        assert prior.unit, prior.name
        assert prior.source, prior.name
        for median in (prior.value, *prior.at.values()):
            assert prior.low <= median <= prior.high, prior.name


def test_no_shipped_constant_leaves_what_is_possible() -> None:
    """For every GPU and framework of the catalog."""
    priors = load_priors()
    outside = []
    for gpu, name in GPUS_AND_FRAMEWORKS:
        found = load_constants(load_gpu(gpu), load_framework(name))
        values = [(prior, float(np.asarray(getattr(found, prior.name)))) for prior in priors]
        outside += [
            f"{prior.name} on {gpu}, {name}: {value:.3g}"
            for prior, value in values
            if not prior.low <= value <= prior.high
        ]
    assert outside == []


def test_constants_without_a_calibration_are_the_prior_medians() -> None:
    """The architecture's own where the priors name it."""
    prior = next(p for p in load_priors() if p.name == "gemm_fraction")
    assert prior_constants().gemm_fraction == pytest.approx(prior.value)
    assert prior_constants("ampere").gemm_fraction == pytest.approx(prior.at["ampere"])


def test_unseen_levels_keep_their_prior_variance() -> None:
    """What the fit has seen adds nothing, what it has not adds all of it."""
    seen = {"architecture": "hopper", "host": "x86", "family": "nanotron", "framework": "nanotron"}
    unseen = seen | {"architecture": "martian"}
    prior = next(p for p in load_priors() if p.name == "gemm_fraction")
    before = SHIPPED_CALIBRATION.unseen_variance(seen)["gemm_fraction"]
    after = SHIPPED_CALIBRATION.unseen_variance(unseen)["gemm_fraction"]
    assert after - before == pytest.approx(prior.by["architecture"] ** 2)


def test_a_gpu_that_no_run_speaks_of_has_a_wider_interval() -> None:
    """The same layout, on a GPU with runs and on one without."""
    found = predict_runs([a_run(), a_run(gpu="mi300x")], SHIPPED_CALIBRATION)
    assert found.time_log_sd[1] > found.time_log_sd[0]


def test_runs_of_ones_own_pull_the_predictions_towards_them() -> None:
    """After five runs of a machine a quarter slower the other three are off by little."""
    runs = my_runs(1.25)
    own = recalibrated(SHIPPED_CALIBRATION, run_batch(runs[:5]))
    before = predict_runs(runs[5:], SHIPPED_CALIBRATION).step_time_s
    after = predict_runs(runs[5:], own).step_time_s
    assert np.all(np.abs(np.log(1.25 * before / after)) < 0.1)
    assert own.time_spread.source_sd == 0.0


def test_runs_that_agree_change_nothing_but_the_certainty() -> None:
    """Measured as predicted: the same step times, in narrower intervals."""
    runs = my_runs(1.0)
    own = recalibrated(SHIPPED_CALIBRATION, run_batch(runs))
    before, after = (predict_runs(runs, c) for c in (SHIPPED_CALIBRATION, own))
    assert after.step_time_s == pytest.approx(before.step_time_s, rel=1e-3)
    assert np.all(after.time_log_sd < before.time_log_sd)


def test_one_mistaken_run_does_not_bend_the_constants() -> None:
    """Ten times too slow, it is an outlier among its siblings."""
    runs = my_runs(1.0)
    odd = a_run(dp="8", schedule="1F1B", step_time_s=repr(10 * (runs[0].step_time_s or 0)))
    own = recalibrated(SHIPPED_CALIBRATION, run_batch([odd, *runs[1:]]))
    after = predict_runs(runs, own).step_time_s
    assert after == pytest.approx([run.step_time_s for run in runs], rel=0.05)


def test_a_calibration_of_ones_own_survives_its_file(tmp_path: Path) -> None:
    """Its terms for one's own framework are read back."""
    own = recalibrated(SHIPPED_CALIBRATION, run_batch(my_runs(1.2)), provenance={"runs": "mine"})
    again = from_json(json.loads(json.dumps(to_json(own))), tmp_path)
    assert Effect("gemm_fraction", "framework", "megatron-lm") in again.effects
    assert again.provenance == {"runs": "mine"}
    run = [a_run()]
    expected = predict_runs(run, own).step_time_s
    assert predict_runs(run, again).step_time_s == pytest.approx(expected, rel=1e-3)


def test_the_chosen_runs_are_distinct_and_reproducible() -> None:
    """The same seed gives the same runs, in the same order."""
    batch = run_batch(my_runs(1.0))
    first, second = (
        informative_runs(SHIPPED_CALIBRATION, batch, 5, np.random.default_rng(3)) for _ in range(2)
    )
    assert first == second
    assert len(set(first)) == 5


def test_choosing_looks_at_no_measurement() -> None:
    """A machine twice as slow is asked for the same runs."""
    chosen = [
        informative_runs(
            SHIPPED_CALIBRATION, run_batch(my_runs(factor)), 4, np.random.default_rng(0)
        )
        for factor in (1.0, 2.0)
    ]
    assert chosen[0] == chosen[1]


def test_batches_and_single_runs_agree() -> None:
    """A run's prediction does not depend on what is priced beside it."""
    runs = my_runs(1.0)
    together = predict_batch(run_batch(runs), SHIPPED_CALIBRATION)
    alone = predict_runs(runs[2:3], SHIPPED_CALIBRATION)
    assert together.step_time_s[2] == pytest.approx(alone.step_time_s[0])
    assert together.fit_probability[2] == pytest.approx(alone.fit_probability[0])


def test_an_architecture_nobody_measured_has_its_relative_s_medians() -> None:
    """Ada's kernels start at Ampere's medians, and its spread is that of all architectures."""
    ampere, ada = load_gpu("a100"), replace(load_gpu("a100"), architecture="ada")
    framework = load_framework("megatron-lm")

    for prior in load_priors():
        assert prior.start("ada") == prior.start("ampere")
    seen = SHIPPED_CALIBRATION.unseen_variance(levels_of(ampere, framework))
    unseen = SHIPPED_CALIBRATION.unseen_variance(levels_of(ada, framework))
    assert unseen["gemm_fraction"] > seen["gemm_fraction"]
    assert SHIPPED_CALIBRATION.has_seen("ampere")
    assert not SHIPPED_CALIBRATION.has_seen("ada")


def test_relatives_are_architectures_with_medians_of_their_own() -> None:
    """Whoever stands for another has measured kernels."""
    measured = {name for prior in load_priors() for name in prior.at}
    assert set(relatives().values()) <= measured
    assert not set(relatives()) & measured
