"""Rows of a CSV become runs, or errors that name the column."""

from pathlib import Path

import pytest

from cost_models.calibrate.cells import (
    COLUMNS,
    REQUIRED,
    UnknowableRunError,
    UnreadableRunError,
    read_table,
)
from cost_models.calibrate.runs import parse_run
from cost_models.specs.errors import SpecError
from cost_models.specs.strategy import Recompute, Schedule
from cost_models.specs.units import GIB
from tests.cost_models.run_rows import DENSE, run_of


def test_a_row_tells_model_machine_batch_and_layout() -> None:
    """Every stated number arrives where it belongs."""
    run = run_of(peak_mem_GiB="40", oom="0")
    assert (run.model.n_layers, run.model.hidden_size, run.model.head_dim) == (24, 2048, 128)
    assert (run.strategy.dp, run.strategy.tp, run.strategy.pp) == (4, 2, 2)
    assert run.strategy.recompute == Recompute.FULL
    assert run.workload.tokens_per_step == 64 * 2048
    assert (run.step_time_s, run.memory_bytes, run.out_of_memory) == (1.5, 40 * GIB, False)
    assert run.open_knobs == ()


def test_tokens_per_second_stand_for_the_step_time() -> None:
    """Tokens of a step over tokens per second of all GPUs."""
    run = run_of(step_time_s="", tokens_per_s_per_gpu="4096")
    assert run.step_time_s == pytest.approx(64 * 2048 / (4096 * 16))


WRONG = {
    "tp": ("x", "tp: 'x' is not a number"),
    "micro_batch": ("1.5", "micro_batch: must be a whole number, got 1.5"),
    "step_time_s": ("nan", "step_time_s: must be a finite number >= 0, got nan"),
    "pp": ("0", "pp: must be >= 1, got 0"),
    "num_gpus": ("12", "num_gpus: must be dp 4 * tp 2 * pp 2 * cp 1 = 16, got 12"),
    "global_batch_seqs": ("66", "global_batch_seqs: must be a multiple of dp 4 * micro_batch 2"),
    "gpu": ("H101", "gpu: no GPU is called 'H101'"),
    "framework": ("megatrn", "framework: no framework is called 'megatrn'"),
    "schedule": ("2F2B", "schedule: is unknown: '2F2B'"),
    "sharding": ("zero9", "sharding: unknown sharding 'zero9'"),
    "recompute": ("some", "recompute: unknown recompute 'some'"),
    "precision": ("fp9", "precision: unknown precision 'fp9'"),
    "oom": ("perhaps", "oom: must be 0 or 1, got 'perhaps'"),
    "n_heads": ("0.5", "n_heads: must be a whole number"),
    "n_kv_heads": ("5", "n_kv_heads"),
    "framework_release": ("soon", "framework_release: must be a year and a month such as 26.04"),
    "layer_partition": ("odd", "layer_partition: is unknown: 'odd'"),
    "scores_counted": ("most", "scores_counted: is unknown: 'most'"),
    "nic_gbit_per_s_per_gpu": ("0", "nic_bandwidth_Bps"),
}


@pytest.mark.parametrize("column", WRONG)
def test_a_wrong_cell_is_named_by_its_column(column: str) -> None:
    """The message begins with the column and holds the value."""
    value, message = WRONG[column]
    with pytest.raises(UnreadableRunError, match=column) as error:
        run_of(**{column: value})
    assert message in str(error.value)
    assert error.value.column in (column, "n_heads")


def test_a_model_without_name_or_dimensions_is_unreadable() -> None:
    """Nothing can be counted for a name that nobody knows."""
    with pytest.raises(UnreadableRunError, match="model: no model is called 'secret'"):
        run_of(model="secret", hidden="", n_layers="", n_heads="")


@pytest.mark.parametrize("column", [name for name in REQUIRED if name != "gpu"])
def test_what_the_source_leaves_out_makes_a_run_unknowable(column: str) -> None:
    """A blank cell is no mistake of the file."""
    with pytest.raises(UnknowableRunError, match=f"{column}: is not stated"):
        run_of(**{column: ""})


def test_cells_beyond_the_header_are_an_error(tmp_path: Path) -> None:
    """A comma too many would shift every cell."""
    path = tmp_path / "runs.csv"
    path.write_text(",".join(DENSE) + "\n" + ",".join(DENSE.values()) + ",7\n")
    line, cells = read_table(path)[1][0]
    with pytest.raises(UnreadableRunError, match="cells under no column: '7'"):
        parse_run(line, cells)


def test_open_knobs_have_candidates_that_keep_the_layout() -> None:
    """Micro-batches divide the batch, chunks the layers; all else stays."""
    run = run_of(micro_batch="", schedule="", recompute="")
    assert set(run.open_knobs) == {"micro_batch_size", "vpp", "recompute"}
    found = run.candidates()
    assert {s.micro_batch_size for s in found} == {1, 2, 4, 8}
    assert {s.vpp for s in found} >= {1, 2, 3}
    assert all((s.schedule == Schedule.INTERLEAVED) == (s.vpp > 1) for s in found)
    assert all((s.dp, s.tp, s.pp) == (4, 2, 2) for s in found)


def test_rows_of_one_sweep_share_their_specs() -> None:
    """Equal models and batches are the same objects."""
    assert run_of().model is run_of(tp="4", dp="2").model
    assert run_of().workload is run_of(tp="4", dp="2").workload


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gpu,gpu\n", "column 'gpu' stands there twice"),
        ("gpu,num_gpus\n", "missing column 'seq_len'"),
        ("", "missing column 'gpu'"),
    ],
)
def test_a_wrong_header_stops_the_file(tmp_path: Path, text: str, message: str) -> None:
    """Without its columns no row can be read."""
    path = tmp_path / "runs.csv"
    path.write_text(text)
    with pytest.raises(SpecError, match=message):
        read_table(path)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    """Bytes that no encoding explains, and files that are not there."""
    path = tmp_path / "runs.csv"
    path.write_bytes(b"\xff\xfe\x00gpu")
    with pytest.raises(SpecError, match="not a CSV file"):
        read_table(path)
    with pytest.raises(SpecError, match="cannot read"):
        read_table(tmp_path / "nowhere.csv")


EXPERTS = DENSE | {
    "gpu": "H100-SXM-80GB",
    "num_gpus": "32",
    "model": "gpt-moe",
    "n_layers": "24",
    "n_experts": "32",
    "topk": "2",
    "moe_ffn_hidden": "1024",
    "gated_mlp": "1",
    "dp": "16",
    "tp": "1",
    "pp": "2",
    "vpp": "2",
    "ep": "16",
    "schedule": "",
    "recompute": "",
    "framework": "Megatron-Bridge",
}


@pytest.mark.parametrize(
    ("changes", "hidden"),
    [
        ({}, True),
        ({"ep": "8"}, False),
        ({"vpp": "1"}, False),
        ({"framework": "torchtitan"}, False),
        ({"pp": "1", "vpp": "", "dp": "32"}, False),
        ({"pp": "1", "vpp": "", "dp": "32", "gpu": "B200", "precision": "mxfp8"}, True),
        (
            {
                "pp": "1",
                "vpp": "",
                "dp": "32",
                "gpu": "B200",
                "precision": "mxfp8",
                "framework_release": "26.04.01",
            },
            False,
        ),
    ],
)
def test_whose_recipe_hides_exchanges_of_experts(changes: dict[str, str], hidden: bool) -> None:
    """Across nodes under an interleaved pipeline, or with experts fused since release 26.06."""
    assert parse_run(2, EXPERTS | changes).strategy.overlap_ep is hidden


def test_what_a_source_did_differently_has_columns() -> None:
    """Router, dropped tokens, frozen weights, stages and MTP are the catalog's unless stated."""
    usual = parse_run(2, EXPERTS)
    cells = {"balanced_experts": "1", "drops_tokens": "1", "frozen_weights": "1"}
    told = parse_run(2, EXPERTS | cells | {"mtp_layers": "1"})
    assert not usual.workload.balanced_experts
    assert told.workload.balanced_experts
    assert told.workload.drops_tokens
    assert told.workload.frozen_weights
    assert (usual.model.mtp_layers, told.model.mtp_layers) == (0, 1)
    split = run_of(layer_partition="embedding_and_head_as_layers")
    assert split.workload.framework.partition == "embedding_and_head_as_layers"


def test_notes_are_for_people() -> None:
    """Whatever they say, nothing is read from them."""
    note = "force-balanced tokens, capacity factor 1; 26.04.01 NeMo Container, embedding-balanced"
    assert parse_run(2, EXPERTS | {"notes": note}) == parse_run(2, EXPERTS)
    assert run_of(source="ultrascale-playbook", step_time_s="1000").slow_regime is False


def test_a_row_may_state_its_own_wires() -> None:
    """400 Gbit/s are 50 GB/s, each way."""
    run = run_of(nic_gbit_per_s_per_gpu="400", nvlink_gbyte_per_s="100")
    assert run.cluster.nic_bandwidth_Bps == 50e9
    assert run.cluster.nvlink_bandwidth_Bps == 100e9


def test_every_column_is_documented() -> None:
    """The table beside the shipped data explains each."""
    readme = Path(__file__).parents[2] / "benchmarks" / "data" / "README.md"
    text = readme.read_text(encoding="utf-8")
    assert [name for name in COLUMNS if f"`{name}`" not in text] == []


def test_a_utilization_tells_a_time_only_where_conventions_agree() -> None:
    """The masked half of the scores is a third of the FLOPs at 64k tokens and little at 2k."""
    cells = {"step_time_s": "", "tflops_per_gpu_reported": "150", "global_batch_seqs": "32"}
    unsaid = cells | {"scores_counted": "unsaid"}
    assert run_of(**unsaid).step_time_s == run_of(**cells).step_time_s
    assert run_of(**cells, seq_len="65536").step_time_s is not None
    assert run_of(**unsaid, seq_len="65536").step_time_s is None
    whole = run_of(**cells, seq_len="65536").step_time_s or 0.0
    half = run_of(**cells, seq_len="65536", scores_counted="half").step_time_s or 0.0
    assert 0.5 < half / whole < 0.75


@pytest.mark.parametrize("name", ["Nemotron_3_Super", "DeepSeekV4 Flash"])
def test_a_known_model_beyond_the_equations_is_unknowable(name: str) -> None:
    """Other kinds of layers are no mistake of the row."""
    with pytest.raises(UnknowableRunError, match="which the equations do not have"):
        run_of(model=name, hidden="", n_layers="")


def test_an_open_pipeline_may_count_embedding_and_head_as_layers() -> None:
    """Llama 3's 126 layers and two on 16 stages: eight chunks on each rank and no other number."""
    run = run_of(
        gpu="H100-SXM-80GB", num_gpus="128", model="405b", hidden="", n_layers="", tp="8", pp="16",
        dp="1", schedule="", global_batch_seqs="64", micro_batch="1",
    )  # fmt: skip
    assert {s.vpp for s in run.candidates()} == {1, 2, 4, 8}
