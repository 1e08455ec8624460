"""Exploring never leaves what is legal, repeats itself, and goes on where it stopped."""

import random
from pathlib import Path
from typing import Any

import pytest

from cost_models.specs.errors import SpecError
from search.explore.codec import Codec
from search.explore.options import Explore
from search.plan import How, search_strategies
from search.result import SearchResult
from search.rules import broken_rules
from search.space.space import Space
from search.sweep.census import take_census
from tests.search.brute_force import CONSTANTS
from tests.search.small_problems import dense, moe, problem


def explored(seed: int = 0, gpus: int = 8, **words: Any) -> SearchResult:
    """A short exploration of a small mixture of experts."""
    p = problem(moe(), gpus=gpus)
    how = How(method="explore", explore=Explore(**{"trials": 24} | words))
    space = Space.core(p).with_(micro_batch_size=(1, 2), cp=(1,), pp=(1, 2), dp_shard=(2,))
    return search_strategies(p.model, p.cluster, p.workload, space, CONSTANTS, seed=seed, how=how)


@pytest.mark.parametrize(("model", "launcher"), [(dense(), "any"), (moe(), "megatron")])
def test_every_point_is_a_legal_strategy(model: Any, launcher: str) -> None:
    """Any numbers at all are decoded into something legal, and come back as themselves."""
    p = problem(model, gpus=12, batch=48, launcher=launcher)
    codec = Codec(take_census(p, Space.full(p)))
    draw = random.Random(0)  # noqa: S311
    for _ in range(25):
        point = {axis.name: draw.randrange(axis.size) for axis in codec.axes}
        strategy = codec.strategy(point)

        assert broken_rules(p, strategy) == []
        assert codec.strategy(codec.point(strategy)) == strategy


def test_the_same_seed_gives_the_same_answer() -> None:
    """Runs with one seed agree in everything, and make no claim of completeness."""
    one, two = explored(seed=3), explored(seed=3)

    assert one.frontier
    assert one.frontier == two.frontier
    assert one.counts == two.counts
    assert not one.certificate.complete
    assert one.counts.priced <= 24


def test_a_study_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    """Half the trials and then the other half end where all of them at once do."""
    journal = str(tmp_path / "trials.log")
    explored(trials=12, storage=journal)
    resumed = explored(trials=24, storage=journal)
    whole = explored(trials=24)

    assert resumed.frontier == whole.frontier
    assert resumed.counts == whole.counts


def test_a_study_of_another_problem_is_refused(tmp_path: Path) -> None:
    """One name, two problems: the second is told so."""
    journal = str(tmp_path / "trials.log")
    explored(storage=journal, study="mine", trials=2)
    with pytest.raises(SpecError, match=r"study 'mine' in .* belongs to another problem"):
        explored(storage=journal, study="mine", gpus=4, trials=2)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"sampler": "guess"}, "unknown sampler 'guess'"),
        ({"sampler": "no.such:Sampler"}, "sampler 'no.such:Sampler' cannot be used: No module"),
        ({"sampler": "math:sqrt"}, "sampler 'math:sqrt' cannot be used|is no Optuna sampler"),
        ({"storage": "sqlite:////no/such/folder/x.db"}, "storage 'sqlite.*' cannot be used"),
        ({"storage": "/no/such/folder/trials.log"}, "storage '/no/such.*' cannot be used"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(words: dict[str, Any], message: str) -> None:
    """Samplers and storages that do not work are named."""
    with pytest.raises(SpecError, match=message) as caught:
        explored(**words)
    assert "\n" not in str(caught.value)


def test_a_corrupt_journal_is_refused(tmp_path: Path) -> None:
    """A file that is no journal is not overwritten."""
    journal = tmp_path / "trials.log"
    journal.write_text("not a journal\n")
    with pytest.raises(SpecError, match="cannot be used"):
        explored(storage=str(journal))
    assert journal.read_text() == "not a journal\n"


@pytest.mark.parametrize("sampler", ["random", "optuna.samplers:RandomSampler", "nsga3"])
def test_samplers_by_name_or_path(sampler: str) -> None:
    """Any of Optuna's samplers explores."""
    assert explored(sampler=sampler, trials=6).frontier


def test_time_ends_a_search() -> None:
    """Without any time left nothing is priced."""
    assert explored(timeout_s=-1.0).counts.priced == 0
