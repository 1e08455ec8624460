"""Options that several commands share; each keeps its words in one place."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from autopar.cli.examples import HeadedOption
from autopar.cli.parsing import LONGEST_SEQUENCE, MOST_TOKENS, Amount, GpuCountsType, Whole

F = TypeVar("F", bound=Callable[..., Any])

AXIS_HELP: Mapping[str, str] = {
    "dp": "Data-parallel ranks.",
    "tp": "Tensor-parallel ranks.",
    "pp": "Pipeline stages.",
    "cp": "Context-parallel ranks.",
    "ep": "Expert-parallel ranks.",
    "etp": "Tensor-parallel ranks of the experts.",
    "vpp": "Model chunks on each pipeline rank.",
    "schedule": "1f1b, interleaved, gpipe, zb-1p, zb-2p, zb-v, dualpipe.",
    "micro_batch_size": "Sequences in one micro-batch.",
    "sequence_parallel": "on or off.",
    "sharding": "none, zero1, zero2, zero3, fsdp, hsdp.",
    "dp_shard": "Ranks in one shard group of hsdp.",
    "reshard_after_forward": "FSDP frees gathered weights: on or off.",
    "recompute": "none, full, selective or modules: layernorm+mlp.",
    "recompute_layers": "With full: layers on each pipeline rank, or all.",
    "cp_comm": "p2p, all-gather, a2a, a2a-p2p.",
    "optimizer_offload": "Share of the optimizer state in host memory: 0.5.",
    "activation_offload": "Share of the activations in host memory: 0.5.",
    "overlap_grad_reduce": "on or off.",
    "overlap_param_gather": "on or off.",
    "overlap_tp": "on or off.",
    "overlap_ep": "on or off.",
    "overlap_p2p": "on or off.",
    "order": "Placement on the network: tp-cp-ep-dp-pp or tp-cp-ep-pp-dp.",
}
"""Every axis but the precision, which belongs to the workload."""

_SWITCHES = frozenset(name for name, text in AXIS_HELP.items() if text.endswith("on or off."))

SOURCE_HELP = "A launcher's file, directory or quoted command; - is stdin. May be given again."
_PROBLEM_HEAD = "What is trained, on what"
_AXES_HEAD = "Axes (one value; to search also several: 4,8 or a range: 1-16)"

_CALIBRATION: Mapping[str, Any] = {
    "metavar": "PATH",
    "help": "Constants from `autopar calibrate` instead of the shipped ones.",
}

_PROBLEM: Mapping[str, dict[str, Any]] = {
    "--model": {
        "metavar": "NAME|PATH",
        "default": "70b",
        "show_default": True,
        "help": "A name from `autopar models`, a config.json, or a TOML file.",
    },
    "--gpus": {"type": GpuCountsType(), "metavar": "N", "help": "How many GPUs."},
    "--gpu": {
        "metavar": "NAME|PATH",
        "help": "A name from `autopar gpus` or a TOML file.  [default: h100]",
    },
    "--cluster": {
        "metavar": "NAME|PATH",
        "help": "Nodes, links and prices: a TOML file, or a name of the catalog.",
    },
    "--seq-len": {
        "type": Whole(LONGEST_SEQUENCE),
        "metavar": "TOKENS",
        "help": "Tokens in a sequence.  [default: the model's own, at most 8192]",
    },
    "--global-batch": {
        "type": Whole(MOST_TOKENS),
        "metavar": "SEQUENCES",
        "help": "Sequences in one step.  [default: about 4M tokens]",
    },
    "--tokens-per-batch": {
        "type": Whole(MOST_TOKENS, suffixes=True),
        "metavar": "TOKENS",
        "help": "The same in tokens: 4M is 4,000,000.",
    },
    "--precision": {
        "metavar": "NAME",
        "help": "bf16, fp16, fp8, mxfp8 or nvfp4.  [default: bf16 where the GPU has it]",
    },
    "--optimizer": {"metavar": "NAME", "help": "Whose state is kept.  [default: adamw]"},
    "--framework": {
        "metavar": "NAME",
        "help": "Whose memory and overlap habits to assume.  [default: the launcher's]",
    },
    "--launcher": {"metavar": "NAME", "help": "Whose rules to obey."},
    "--reserve-gib": {
        "type": Amount(),
        "metavar": "GIB",
        "help": "Memory of each GPU to leave alone.",
    },
    "--calibration": dict(_CALIBRATION),
}


def problem_options(command: F) -> F:
    """What is trained, on what, and by which software."""
    for name in reversed(list(_PROBLEM)):
        command = click.option(name, cls=HeadedOption, head=_PROBLEM_HEAD, **_PROBLEM[name])(
            command
        )
    return command


def from_option(command: F) -> F:
    """Files to read, several of them if need be."""
    return click.option(
        "--from", "sources", multiple=True, metavar="FILE|COMMAND", help=SOURCE_HELP
    )(command)


def axis_options(command: F) -> F:
    """One option for each axis; its text goes to the search as it is."""
    for name in reversed(list(AXIS_HELP)):
        option = f"--{name.replace('_', '-')}"
        bare: dict[str, Any] = {"is_flag": False, "flag_value": "on"} if name in _SWITCHES else {}
        command = click.option(
            option,
            name,
            cls=HeadedOption,
            head=_AXES_HEAD,
            metavar="VALUES",
            help=AXIS_HELP[name],
            **bare,
        )(command)
    return command


def strategy_options(command: F) -> F:
    """The axes, and how the layers of one strategy are dealt."""
    return axis_options(
        click.option(
            "--stage-layers", metavar="N,N,..", help="Layers of each chunk, in model order."
        )(command)
    )


def space_option(help_text: str) -> Callable[[F], F]:
    """How much is open."""
    return click.option(
        "--space", default="core", show_default=True, metavar="core|full", help=help_text
    )


def json_option(command: F) -> F:
    """Where the document for programs goes."""
    return click.option(
        "--json", "json_path", metavar="PATH|-", help="Write a JSON document; - is stdout."
    )(command)


def csv_option(command: F) -> F:
    """Where the rows go as comma-separated values."""
    return click.option(
        "--csv", "csv_path", metavar="PATH|-", help="Write the rows as CSV; - is stdout."
    )(command)


def calibration_option(command: F) -> F:
    """Whose constants to use."""
    return click.option("--calibration", **_CALIBRATION)(command)


def axis_texts(values: Mapping[str, Any]) -> dict[str, str]:
    """The axes that the user named, as text."""
    return {name: values[name] for name in AXIS_HELP if values.get(name) is not None}
