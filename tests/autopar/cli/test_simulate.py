"""``autopar simulate`` on the command line: a screen, a document, a trace."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import autopar
from cost_models.specs.strategy import Strategy

Run = Callable[..., Any]

SMALL = "simulate --model 8b --gpus 8 --pp 4 --seq-len 4096 --global-batch 32"


def test_the_screen_shows_replay_and_closed_form(run: Run) -> None:
    """Step time both ways, a row for each rank, a chart of its memory."""
    ran = run(SMALL)
    assert ran.code == 0
    assert "replayed" in ran.out
    assert "in closed form" in ran.out
    assert "memory over the step" in ran.out
    assert sum(line.strip()[:1].isdigit() for line in ran.out.splitlines()) == 4


def test_the_document_and_the_facade_agree(run: Run, tmp_path: Path) -> None:
    """The same step from the command line and from Python; lists are by rank."""
    path = tmp_path / "step.json"
    assert run(SMALL, f"--json {path}").code == 0
    document = json.loads(path.read_text(encoding="utf-8"))
    replay = autopar.simulate("8b", Strategy(dp=2, pp=4, overlap_param_gather=False,
        overlap_p2p=False), gpu="h100", seq_len=4096, global_batch=32)  # fmt: skip
    assert document["schema"] == "autopar/simulation/1"
    assert document["step_time_s"] == replay.step_time_s
    assert len(document["peak_bytes"]) == len(document["bubble_fraction"]) == 4
    assert sum(document["n_layers"]) == 32


def test_the_trace_opens_as_json(run: Run, tmp_path: Path) -> None:
    """Whole or not at all: a directory that is not there leaves nothing behind."""
    path = tmp_path / "trace.json"
    assert run(SMALL, f"--stage-layers 8,9,9,6 --trace {path}").code == 0
    assert json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    refused = run(SMALL, f"--trace {tmp_path / 'none' / 'trace.json'}")
    assert refused.code == 2
    assert refused.err.startswith("error: --trace")


def test_two_documents_on_standard_output_are_refused(run: Run) -> None:
    """One of them has to be a file."""
    ran = run(SMALL, "--json - --trace -")
    assert ran.code == 2
    assert "standard output" in ran.err


def test_rules_are_obeyed_unless_forced(run: Run) -> None:
    """A strategy that its launcher refuses is named with its rule."""
    broken = run(SMALL, "--launcher megatron --schedule zb-1p")
    assert broken.code == 2
    assert "--force" in broken.err
    assert run(SMALL, "--launcher megatron --schedule zb-1p --force").code == 0


def test_a_schedule_that_cannot_be_is_one_line(run: Run) -> None:
    """DualPipe with too few micro-batches says so."""
    ran = run("simulate --model 8b --gpus 8 --pp 8 --global-batch 8 --schedule dualpipe --force")
    assert ran.code == 2
    assert "dualpipe" in ran.err
    assert len(ran.err.splitlines()) <= 2
