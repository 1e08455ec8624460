"""A row of a table of runs, and runs that differ from it in some cells."""

from cost_models.calibrate.runs import Run, parse_run

DENSE = {
    "source": "here",
    "row_id": "1",
    "gpu": "A100-SXM-80GB",
    "num_gpus": "16",
    "gpus_per_node": "8",
    "model": "gpt",
    "n_layers": "24",
    "hidden": "2048",
    "n_heads": "16",
    "vocab": "51200",
    "seq_len": "2048",
    "global_batch_seqs": "64",
    "micro_batch": "2",
    "dp": "4",
    "tp": "2",
    "pp": "2",
    "recompute": "full",
    "schedule": "1F1B",
    "precision": "bf16",
    "framework": "Megatron-LM",
    "step_time_s": "1.5",
}


def run_of(**changes: str) -> Run:
    """The dense row with other cells."""
    return parse_run(2, DENSE | changes)
