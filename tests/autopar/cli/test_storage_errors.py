"""Whatever happens to a storage is one line, what is kept is another, and nothing is broken."""

import json
import os
import signal
import sqlite3
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest

from search.explore.storage import open_store
from search.explore.study import RECORD
from tests.autopar.cli import processes
from tests.autopar.cli.documents import answer
from tests.autopar.cli.servers import QUOTED, free_port, postgres

Run = Callable[..., Any]
PROBLEM = "search --gpus 64 --model 8b --tp 1,2,4 --pp 1 --no-refine"


def limited(most_bytes: int, words: str) -> None:
    """A command that cannot make a file longer than so many bytes, as on a disk that is full."""
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    processes.command(*words.split())


def lines(ran: Any, *, code: int = 2) -> list[str]:
    """What a run that failed has said: a line and a hint at most, and no answer."""
    said: list[str] = ran.err.splitlines()
    assert (ran.code, ran.out) == (code, ""), ran
    assert said[0].startswith("error: ")
    assert all(line.startswith("hint: ") for line in said[1:])
    assert len(said) <= 2
    return said


def made(run: Run, place: str, trials: int = 6) -> None:
    """A study of a small problem."""
    assert run(f"{PROBLEM} {place} --trials {trials}").code == 0


@pytest.fixture(scope="module")
def six_trials(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The journal of a study ``s`` of the small problem."""
    path = tmp_path_factory.mktemp("made") / "j.log"
    code, _, err = processes.autopar(
        *f"{PROBLEM} --storage {path} --study s --trials 6".split()
    ).ended()
    assert (code, err) == (0, "")
    return path.read_bytes()


@pytest.fixture
def journal(six_trials: bytes, tmp_path: Path) -> Path:
    """A copy of it for one test."""
    path = tmp_path / "j.log"
    path.write_bytes(six_trials)
    return path


@pytest.mark.parametrize("command", [PROBLEM, "worker"])
@pytest.mark.parametrize(
    ("scheme", "said"),
    [("postgresql+psycopg://me:geheim@", "refused"), ("grpc://", "timeout")],
)
def test_an_unreachable_storage(
    run: Run, command: str, scheme: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named without its password, and nothing is lost."""
    pytest.importorskip("psycopg" if "psycopg" in scheme else "grpc")
    monkeypatch.setattr("search.explore.storage.PATIENCE_S", 1)
    ran = run(f"{command} --storage {scheme}127.0.0.1:{free_port()}/db --study s")
    first, hint = lines(ran)
    assert "storage '" in first
    assert "cannot be used: " in first
    assert said in first.lower()
    assert "goes on as soon as it answers" in hint
    assert "geheim" not in ran.err


@pytest.mark.parametrize(
    ("version", "hint"),
    [
        ("v2.6.0.a", "optuna storage upgrade --storage sqlite:///"),
        ("v99.0.0.a", "install the version of Optuna that made them"),
    ],
)
def test_tables_of_another_optuna(run: Run, version: str, hint: str, tmp_path: Path) -> None:
    """Older tables can be upgraded, newer ones need a newer Optuna; the trials stay."""
    path = tmp_path / "s.db"
    made(run, f"--storage sqlite:///{path} --study s")
    with sqlite3.connect(path) as tables:
        tables.execute("UPDATE alembic_version SET version_num = ?", (version,))
    tables.close()
    said = lines(run(f"worker --storage sqlite:///{path} --study s"))
    assert "no longer compatible with the table schema" in said[0]
    assert hint in said[1]


@pytest.mark.parametrize(
    ("words", "unlike"),
    [
        ("--seq-len 4096", "the batch or its recipe"),
        ("--sharding zero1", "the axes"),
        ("--seed 7", "the seed"),
        ("--sampler random", "the sampler"),
    ],
)
def test_a_study_of_another_problem(run: Run, words: str, unlike: str, journal: Path) -> None:
    """The line says in what the two differ, and the study is as it was."""
    before = journal.read_bytes()
    first, hint = lines(run(f"{PROBLEM} {words} --storage {journal} --study s"))
    assert f"study 's' in {journal} belongs to another problem: {unlike}" in first
    assert hint == "hint: give the study another name"
    assert journal.read_bytes() == before


def test_a_study_of_another_calibration(run: Run, journal: Path, tmp_path: Path) -> None:
    """Constants of one's own ask another question."""
    from cost_models.calibrate.calibration import SHIPPED

    mine = tmp_path / "mine.json"
    document = json.loads(SHIPPED.read_text())
    document["effects"][0][3] += 0.1
    mine.write_text(json.dumps(document))
    said = lines(run(f"{PROBLEM} --calibration {mine} --storage {journal} --study s"))
    assert "belongs to another problem: the calibration" in said[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"autopar": "0.0.1"}, "was made by autopar 0.0.1, this is "),
        ({"schema": "autopar/study/99"}, "was made by schema autopar/study/99, this is "),
        ({"launcher": "megatrn"}, "cannot be joined: it cannot be read: unknown launcher"),
        ({"calibration": "0"}, "cannot be joined: it does not come back as it was: calibration"),
        ({"start": {"price": [1.0, 2.0]}}, "its equations say 1 bytes where these say "),
        ({"start": {"box": {"tp": 9}}}, "its rules leave tp 9, here they leave "),
    ],
)
def test_a_worker_of_another_version(
    run: Run, change: dict[str, Any], said: str, journal: Path
) -> None:
    """It adds nothing to a study whose equations, rules or words are not its own."""
    study = optuna.load_study(study_name="s", storage=open_store(str(journal)).storage)
    record = study.user_attrs[RECORD]
    if "start" in change:
        change = {"start": {**record["start"], **change["start"]}}
    study.set_user_attr(RECORD, {**record, **change})
    first, hint = lines(run(f"worker --storage {journal} --study s"))
    assert said in first
    assert hint == "hint: its trials are kept; use the same version of autopar on all machines"
    assert len(study.trials) == 6


@pytest.mark.parametrize("command", [PROBLEM, "worker"])
def test_a_study_that_somebody_else_made(
    run: Run, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Optuna's own studies are left alone."""
    monkeypatch.setattr("search.explore.study.RECORD_PATIENCE_S", 0.1)
    journal = tmp_path / "j.log"
    optuna.create_study(study_name="s", storage=open_store(str(journal)).storage)
    before = journal.read_bytes()
    said = lines(run(f"{command} --storage {journal} --study s"))
    assert said[0] == f"error: study 's' in {journal} was not made by autopar"
    assert journal.read_bytes() == before


def test_a_study_that_is_not_there(run: Run, tmp_path: Path) -> None:
    """The nearest names are told; no file is made for somebody who only wants to join."""
    journal = tmp_path / "j.log"
    made(run, f"--storage {journal} --study llama", trials=1)
    for command in ("worker", "search"):
        said = lines(run(f"{command} --storage {journal} --study lama"))
        assert said == [f"error: no study 'lama' in {journal}", "hint: did you mean llama?"]
    for url in (str(tmp_path / "none.log"), f"sqlite:///{tmp_path}/none.db"):
        assert "no such file" in lines(run(f"worker --storage {url} --study s"))[0]
    assert [path.name for path in tmp_path.iterdir()] == ["j.log"]


def test_a_study_says_all_or_nothing(run: Run, tmp_path: Path) -> None:
    """A part of the problem beside a study that holds all of it is a slip."""
    said = lines(run(f"search --model 8b --storage {tmp_path}/j.log --study s"))
    assert said[0] == "error: --model is the study's own, or --gpus is missing"


def test_a_journal_with_a_broken_line(run: Run, journal: Path) -> None:
    """The line is named, with how to keep what stands before it; nothing is written."""
    whole = journal.read_bytes().splitlines(keepends=True)
    broken = b"".join([*whole[:30], b"{'half\n", *whole[30:]])
    journal.write_bytes(broken)
    first, hint = lines(run(f"worker --storage {journal} --study s"))
    assert f"storage '{journal}' cannot be used: line 31 is no entry of a journal" in first
    assert f"head -n 30 {journal}" in hint
    assert journal.read_bytes() == broken


def test_half_a_line_at_the_end_is_cut_off(run: Run, journal: Path) -> None:
    """What a machine that stopped left behind is not glued to the next line."""
    with journal.open("ab") as end:
        end.write(b'{"op_code":5,"worker')
    assert run(f"search --storage {journal} --study s --trials 8 --no-refine").code == 0
    assert all(json.loads(line) for line in journal.read_text().splitlines())


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        ("gues", "unknown sampler 'gues'"),
        ("no.such:Sampler", "sampler 'no.such:Sampler' cannot be used: No module named"),
        ("math:sqrt", "sampler 'math:sqrt'"),
        ("optuna.samplers:CmaEsSampler", "sampler 'optuna.samplers:CmaEsSampler' "),
    ],
)
def test_a_sampler_that_does_not_work(run: Run, sampler: str, said: str, tmp_path: Path) -> None:
    """Whether it is missing, no sampler, or refuses the problem."""
    ran = run(f"{PROBLEM} --sampler {sampler} --storage {tmp_path}/j.log --trials 12")
    assert said in lines(ran)[0]


@pytest.mark.skipif(os.name == "nt", reason="limits of POSIX")
@pytest.mark.parametrize("kind", ["journal", "sqlite"])
def test_a_disk_that_fills_up(run: Run, kind: str, tmp_path: Path) -> None:
    """What was priced is kept whole, and with room again the search ends as if nothing was."""
    path = tmp_path / "trials"
    where = str(path) if kind == "journal" else f"sqlite:///{path}"
    place = f"--storage {where} --study s"
    made(run, f"--storage {where} --study other", trials=1)
    limit = path.stat().st_size + (60_001 if kind == "journal" else 8 * 4096)
    code, out, err = processes.Process(limited, limit, f"{PROBLEM} {place} --trials 40").ended()
    first, hint = err.splitlines()
    assert (code, out) == (2, "")
    assert first.startswith(f"error: storage '{where}' cannot be used: ")
    assert (
        hint == f"hint: what was priced is kept in study 's' of {where}; the same command goes on"
    )
    if kind == "journal":
        assert path.read_bytes().endswith(b"\n")
    answers = [tmp_path / name for name in ("resumed.json", "whole.json")]
    assert run(f"{PROBLEM} {place} --trials 40 --json {answers[0]}").code == 0
    assert run(f"{PROBLEM} --trials 40 --json {answers[1]}").code == 0
    assert answer(answers[0]) == answer(answers[1])


@pytest.mark.postgres
def test_a_server_that_goes_away_never_shows_the_password(run: Run) -> None:
    """A wrong password, then a server that has gone: a line each, without the password."""
    with postgres() as url:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            wrong = run(f"worker --storage {url.replace(QUOTED, 'falsch')} --study s")
        made(run, f"--storage {url} --study s")
    gone = run(f"worker --storage {url} --study s")
    assert "password authentication failed" in lines(wrong)[0]
    assert "refused" in lines(gone)[0]
    for ran in (wrong, gone):
        assert "***@127.0.0.1" in ran.err
        assert not [word for word in ("falsch", "s3cret", QUOTED) if word in ran.err]
