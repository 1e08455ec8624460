"""Searches are judged by frontiers that are exact, and called by name, path, or not at all."""

import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from benchmarks.search_quality import algorithms, report
from benchmarks.search_quality.__main__ import main
from benchmarks.search_quality.algorithms import BUILT_IN, DEFAULT, algorithm_called
from benchmarks.search_quality.exact import Exact, exact_of, find, keep, read_kept
from benchmarks.search_quality.experts import expert_rows, expert_table, judged_experts
from benchmarks.search_quality.instances import Instance, Mixed, load_suite
from benchmarks.search_quality.measure import GOAL, Mark, marks, run
from benchmarks.search_quality.task import Cost, Evaluation, Prices, Task
from cost_models.equations.step import step_time_s
from cost_models.specs.strategy import Strategies
from search.explore.options import Explore
from search.explore.run import prices
from search.plan import How, search_strategies
from search.sweep.census import legal_of
from tests.benchmarks.searches import Asked
from tests.search.brute_force import block_frontier, not_beaten

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "search_quality.csv"
HERE = "tests.benchmarks.searches"
SUITE = load_suite()


@pytest.fixture(scope="module")
def small() -> Instance:
    """8b on eight GPUs: 2,448 legal strategies."""
    return SUITE["dense-8b-8"]


@pytest.fixture(scope="module")
def known(small: Instance) -> Prices:
    """All of their prices."""
    return Prices(small)


@pytest.fixture(scope="module")
def exact(small: Instance) -> Exact:
    """Its frontier, found now."""
    return find(small)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Run the benchmark's command line; its exit code and what it printed."""

    def run_words(*words: str) -> tuple[int, str, str]:
        code: Any = 0
        try:
            main(words)
        except SystemExit as left:
            code = left.code
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run_words


def test_the_suite_spans_what_it_is_to_span() -> None:
    """Twelve problems at least, of every kind, of 1e3 to 1e8 strategies."""
    sizes = [row["legal"] for row in read_kept().values()]

    assert list(read_kept()) == list(SUITE)
    assert len(sizes) >= 12
    assert all(1e3 <= size <= 1e8 for size in sizes)
    assert min(sizes) < 1e4
    assert max(sizes) > 5e7
    assert {instance.kind for instance in SUITE.values()} == {
        *("dense", "MoE", "long context", "small memory", "odd world size", "mixed cluster")
    }


@pytest.mark.parametrize("name", ["dense-8b-8", "dense-405b-16384"])
def test_the_exact_frontier_is_brute_forces(name: str) -> None:
    """The sweep finds the costs that pricing every strategy, without any bound, leaves."""
    instance = SUITE[name]
    q = instance.question
    near, legal, _ = block_frontier(q.space, q.problem, q.constants)
    points = list(zip(*(v.tolist() for v in prices(q.problem, q.constants, near)), strict=True))
    expected = sorted(not_beaten(points), key=lambda point: point[1])
    found = find(instance)

    assert legal == instance.census.legal
    assert found.memory_bytes.tolist() == pytest.approx([m for m, _ in expected], rel=1e-12)
    assert found.step_time_s.tolist() == pytest.approx([t for _, t in expected], rel=1e-12)


def test_a_mixed_strategy_costs_its_best_split() -> None:
    """Every way to share micro-batches out is priced anew, on each pool by itself."""
    mixed = SUITE["mixed-8b-64"]
    assert isinstance(mixed, Mixed)
    legal = legal_of(mixed.census)
    batch = mixed.question.problem.workload.global_batch_size
    few = np.flatnonzero(batch // (legal.micro_batch_size * legal.dp) == 4)
    rows = few[np.linspace(0, len(few) - 1, 3).astype(int)]
    memory, seconds = mixed.prices(legal)
    for row in rows.tolist():
        one, s = legal.row(row), legal.take(np.array([row]))
        replicas = [pool.n_gpus // (one.tp * one.pp * one.cp) for pool in mixed.pools]
        total = batch // one.micro_batch_size

        def step(
            k: int, m: int, s: Strategies = s, size: int = one.micro_batch_size * one.dp
        ) -> float:
            p = mixed.problems[k]
            job = replace(p.workload, global_batch_size=m * size)
            return float(step_time_s(p.model, p.cluster, job, s, mixed.constants[k])[0])

        splits = [(m, -(-(total - replicas[0] * m) // replicas[1])) for m in range(1, 8)]
        best = min(max(step(0, m), step(1, n)) for m, n in splits if n >= 1)
        assert seconds[row] == pytest.approx(best, rel=1e-9)
    exact = find(mixed)
    fits = memory <= mixed.usable_bytes
    assert exact.step_time_s.min() == pytest.approx(seconds[fits].min())


def test_kept_frontiers_are_found_again_where_they_are_stale(
    small: Instance, exact: Exact, tmp_path: Path
) -> None:
    """Another problem's digest, or prices that the equations do not give, are not believed."""
    path = tmp_path / "frontiers.json"
    keep([small], path)
    kept = read_kept(path)
    other = {small.name: kept[small.name] | {"key": "other"}}
    wrong = {small.name: kept[small.name] | {"step_time_s": [1.0, 2.0]}}

    for document in (kept, other, wrong, {}):
        again = exact_of(small, document)
        assert again.step_time_s.tolist() == exact.step_time_s.tolist()
        assert again.memory_bytes.tolist() == exact.memory_bytes.tolist()


def test_the_default_is_what_an_exploration_does(small: Instance, known: Prices) -> None:
    """The same strategies are priced, and the same of them are on the frontier."""
    q = small.question
    explored = search_strategies(
        q.problem.model,
        q.problem.cluster,
        q.problem.workload,
        q.space,
        q.constants,
        seed=3,
        how=How(method="explore", explore=Explore(trials=60), refine=False),
    )
    task = Task(known, 60)
    algorithm_called(DEFAULT).search(task, 60, 3)
    fitting = [one.cost for one in task.trace if one.cost.fits]
    mine = not_beaten([(c.memory_bytes, c.step_time_s) for c in fitting])

    assert len(task.trace) == 60
    assert len(fitting) == explored.counts.priced
    assert sorted(t for _, t in mine) == pytest.approx(
        [row.step_time_s for row in explored.frontier]
    )


def test_marks_are_areas_and_regrets_by_hand(small: Instance) -> None:
    """Half the area after one evaluation, what does not fit counts, the goal is reached last."""
    whole = small.usable_bytes
    front = Exact(
        strategies=Strategies(),
        memory_bytes=np.array([whole / 2]),
        step_time_s=np.array([1.0]),
        seconds=0.0,
    )
    costs = [(3 * whole / 4, 1.0), (whole / 4, 9.0), (2 * whole, 0.5), (whole / 2, 1.0)]
    trace = [Evaluation(Cost(m, t, m - whole), float(n)) for n, (m, t) in enumerate(costs)]
    first = next(marks(small, front, "mine", 0, trace[:1]))
    last = list(marks(small, front, "mine", 0, trace))[-1]
    slow = next(marks(small, front, "mine", 0, [Evaluation(Cost(1.0, 1.5, -1.0), 0.0)]))
    none = next(marks(small, front, "mine", 0, trace[2:3]))

    assert first.hypervolume == pytest.approx(0.5)
    assert first.goal_at is None
    assert (last.evaluations, last.goal_at, last.wall_s) == (4, 4, 3.0)
    assert last.hypervolume == pytest.approx(1.0)
    assert slow.regret == pytest.approx(0.5)
    assert (none.hypervolume, none.regret) == (0.0, np.inf)


@pytest.mark.parametrize("name", [n for n in BUILT_IN if n not in ("gp", "nsga2-solver", "nsga3")])
def test_every_search_keeps_to_its_budget_and_repeats_itself(
    small: Instance, known: Prices, exact: Exact, name: str
) -> None:
    """One seed gives one trace, another seed another one, none longer than was allowed."""
    one = algorithm_called(name)
    ends = [
        list(run(small, exact, one, seeds=[seed], budget=40, limit_s=None, prices=known))[-1]
        for seed in (0, 0, 1)
    ]

    assert 0 < ends[0].evaluations <= 40
    assert replace(ends[0], wall_s=0.0) == replace(ends[1], wall_s=0.0)
    assert 0.0 <= ends[0].hypervolume <= 1.0 + 1e-12
    if name == DEFAULT:
        assert min(end.hypervolume for end in ends) >= GOAL


def test_a_run_ends_with_its_time(small: Instance, known: Prices, exact: Exact) -> None:
    """Without any seconds nothing is evaluated."""
    one = algorithm_called("random")
    assert not list(run(small, exact, one, seeds=[0], budget=9, limit_s=-1.0, prices=known))


def test_searches_of_ones_own_run_from_the_command_line(
    said: Callable[..., tuple[int, str, str]], exact: Exact, tmp_path: Path
) -> None:
    """A function, an asker and a sampler by path; table, CSV and what stands beside them."""
    words = ["-i", "dense-8b-8", "--budget", "12", "--seeds", "2", "--out", str(tmp_path)]
    sampler = "optuna.samplers:RandomSampler"
    Asked.told = 0
    code, out, err = said(
        *words, "-a", f"{HERE}:search", "-a", f"{HERE}:Asked", "-a", sampler, "-a", DEFAULT
    )
    rows = report.read_csv(tmp_path / "search_quality.csv")

    assert (code, "Traceback" in err) == (0, False)
    assert Asked.told == 24
    assert {row.algorithm for row in rows} == {f"{HERE}:search", f"{HERE}:Asked", sampler, DEFAULT}
    assert {(row.seed, row.evaluations) for row in rows} == {
        (s, n) for s in (0, 1) for n in (10, 12)
    }
    assert out == (tmp_path / "search_quality.md").read_text(encoding="utf-8")
    size = f"{SUITE['dense-8b-8'].census.legal:,} | {len(exact.memory_bytes)}"
    assert f"| dense-8b-8 | dense | {size} |" in out
    code, out, _ = said(
        *words[:-2], "-a", "random", "--beside", str(tmp_path / "search_quality.csv")
    )
    assert code == 0
    assert (
        f"| {HERE}:search (2) | {HERE}:Asked (2) | {sampler} (2) | {DEFAULT} (2) | random (2) |"
        in out
    )


@pytest.mark.parametrize(
    ("words", "line", "hint"),
    [
        (["-a", "nsga"], "unknown algorithm 'nsga'", "did you mean 'nsga"),
        (["-a", "guess"], "unknown algorithm 'guess'", "known: autopar,"),
        (["-a", "no.such:thing"], "algorithm 'no.such:thing' cannot be imported: No module", ""),
        (["-a", f"{HERE}:nobody"], "cannot be imported: module", ""),
        (["-a", f"{HERE}:four"], "takes 4 arguments", "search(problem, budget, seed)"),
        (["-a", f"{HERE}:NUMBER"], "cannot be called", ""),
        (["-a", f"{HERE}:silent"], "returns int, which cannot ask", ""),
        (["-a", f"{HERE}:fails"], "failed: ZeroDivisionError: division by zero", ""),
        (["-a", f"{HERE}:lost"], "no axis is called tensor", ""),
        (["-i", "dense-8b"], "unknown instance 'dense-8b'", "did you mean 'dense-8b-8'?"),
        (["-i", "x"], "unknown instance 'x'", "known: dense-8b-8,"),
        (["--budget", "0"], "Invalid value for '--budget'", ""),
        (["--out", "/no/such/folder"], "--out /no/such/folder", ""),
        (["--beside", "/no/such.csv"], "/no/such.csv: cannot be read", ""),
        (["--beside", __file__], "no CSV of this benchmark", ""),
    ],
)
def test_wrong_inputs_are_one_line(
    said: Callable[..., tuple[int, str, str]], words: list[str], line: str, hint: str
) -> None:
    """Exit code 2, what is wrong, what would be right, and no traceback."""
    fixed = [] if "-i" in words else ["-i", "dense-8b-8"]
    code, out, err = said("--seeds", "1", *fixed, *words)
    lines = err.splitlines()

    assert (code, out) == (2, "")
    assert lines[0].startswith("error: ")
    assert line in lines[0]
    assert len(lines) == (2 if hint else len(lines[:1]))
    assert hint in lines[-1]


def test_gp_is_skipped_by_name_without_torch(
    said: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others run; nobody wonders where it is."""
    monkeypatch.setattr(algorithms, "find_spec", lambda name: None)
    code, out, err = said(
        "-i", "dense-8b-8", "--budget", "5", "--seeds", "1", "-a", "gp", "-a", "grid"
    )

    assert code == 0
    assert "gp skipped: torch is not installed" in err
    assert "| instance | grid (1) |" in out


def test_plots_show_every_search() -> None:
    """A curve for each, in as many panels as there are instances."""
    pytest.importorskip("matplotlib")
    from benchmarks.search_quality.plot import svg

    common: dict[str, Any] = {"wide": 0.5, "regret": 0.1, "goal_at": None}
    some = [
        Mark(
            instance=i,
            algorithm=a,
            seed=s,
            evaluations=n,
            wall_s=n / 9,
            hypervolume=1 - 1 / n,
            **common,
        )
        for i in ("one", "two")
        for a in ("mine", "yours")
        for s in (0, 1)
        for n in (10, 20)
    ]
    drawn = [svg(some, "evaluations"), svg(some, "wall_s"), svg(some, "wall_s")]
    assert drawn[1] == drawn[2] != drawn[0]
    assert all("<!-- mine -->" in one and one.count('<g id="axes_') == 2 for one in drawn)


@pytest.mark.parametrize(
    "name",
    [
        "llama3_8b_pretrain_8gpu_h100_bf16",
        "llama3_70b_pretrain_64gpu_h100_bf16",
        "qwen3_30b_a3b_pretrain_16gpu_h100_fp8cs",
    ],
)
def test_an_expert_is_never_better_than_our_best(name: str) -> None:
    """For the expert's own problem, in a space that holds the expert's values."""
    verdict = next(judged_experts([row for row in expert_rows() if row["name"] == name]))

    assert verdict.comparable
    assert verdict.best_s is not None
    assert verdict.best_s <= verdict.found.yours.step_time_s * (1 + 1e-9)
    if verdict.gain > 0.1:
        line = expert_table([verdict]).splitlines()[-1]
        assert any(name in line for step in verdict.found.steps for name in step.changes)


def test_every_expert_says_where_it_is_from() -> None:
    """A source and a reference in each row."""
    rows = expert_rows()
    assert {row["source"] for row in rows} == {
        *("megatron-bridge", "llama3-herd", "deepseek-v3-report")
    }
    assert all(row["source_ref"] for row in rows)


def test_the_committed_results_reach_the_goal() -> None:
    """Median of ten seeds, 500 evaluations, on every instance of the suite."""
    with RESULTS.open(encoding="utf-8", newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["algorithm"] == DEFAULT]
    for name in SUITE:
        ends = [r for r in rows if r["instance"] == name and r["evaluations"] == "500"]
        assert len({r["seed"] for r in ends}) == 10
        assert median(float(r["hypervolume"]) for r in ends) >= GOAL
