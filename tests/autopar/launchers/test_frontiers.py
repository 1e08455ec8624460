"""A search for a launcher finds what that launcher's files can say, and nothing else."""

from functools import cache
from random import Random

import pytest

from autopar import api
from autopar.answers.emission import plan_of
from autopar.launchers import dossier, names
from autopar.launchers.knobs import effective
from cost_models.specs.errors import SpecError
from search.result import SearchResult
from search.rules.launchers import SAME_RULES

JOBS = (("8b", 8), ("70b", 512), ("mixtral-8x22b", 128), ("deepseek-v3", 2048))
"""Models and GPUs whose frontiers are written whole, at 4096 tokens."""
WITHOUT_EXPERTS = ("nanotron",)
"""Launchers that train dense models only."""
AT_RUN_TIME = ("pp", "model.mtp_layers")
"""What is left to the user's script, or to the model, whatever the strategy."""


@cache
def searched(model: str, gpus: int, name: str) -> SearchResult:
    """The frontier of one of the jobs under one launcher's rules."""
    return api.search(model, gpus, launcher=name, seq_len=4096)


def complaints(result: SearchResult, name: str) -> list[str]:
    """What cannot be written of a frontier, or is not read again as it was meant."""
    found = []
    for row in result.frontier:
        plan = plan_of(result, row)
        try:
            emission = dossier(name).emit(plan)
        except SpecError as error:
            found.append(f"{row.strategy}: {error}")
            continue
        found += [x for x in emission.not_expressed if x.split()[0] not in AT_RUN_TIME]
        read = effective(dossier(name).read(emission.files).strategy, plan.model)
        meant = effective(plan.strategy, plan.model)
        same = {"etp": meant.etp, "stage_layers": meant.stage_layers}
        if read.with_(**same) != meant:
            found.append(f"{meant} is read as {read}")
    return found


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("job", JOBS, ids=lambda job: f"{job[0]}-{job[1]}")
def test_every_row_can_be_written(name: str, job: tuple[str, int]) -> None:
    """No row of the frontier is refused, or runs as something else."""
    model, gpus = job
    result = searched(model, gpus, SAME_RULES.get(name, name))
    if name in WITHOUT_EXPERTS and result.model.is_moe:
        assert "model_is_llama_like" in str(result.explanation)
    else:
        assert result.frontier
    assert not complaints(result, name)


@pytest.mark.parametrize("name", names())
@pytest.mark.parametrize("seed", range(2))
def test_every_row_of_a_full_space_can_be_written(name: str, seed: int) -> None:
    """The same where all knobs are open, for jobs drawn by chance."""
    rng = Random(100 * seed + len(name))  # noqa: S311
    model = rng.choice(("8b", "qwen2.5-7b", "8x7b", "llama2-13b", "qwen3-30b-a3b"))
    gpus = rng.choice((4, 8, 16, 24))
    result = api.search(
        model,
        gpus,
        launcher=name,
        seq_len=rng.choice((2048, 4096, 6144)),
        global_batch=rng.choice((48, 96, 192)),
        space="full",
        fixed={"micro_batch_size": rng.choice(("1", "2", "1,4"))},
    )

    unsaid = complaints(result, name)

    assert not [text for text in unsaid if not text.startswith("activation_offload of a dense")]
