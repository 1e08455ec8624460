"""How many GPUs a launch script asks for."""

import re

from autopar.launchers.formats.shell import Script, Word

_NODES = ("--nnodes", "-N", "--num_nodes")
_PER_NODE = ("--nproc-per-node", "--ntasks-per-node", "--gpus-per-node", "--gres")
_DIRECTIVE = re.compile(r"^#SBATCH\s+(-\w|--[\w-]+)[\s=]+(\S+)", re.MULTILINE)
_VARIABLES = (
    ("NNODES", "NUM_NODES", "NODES", "SLURM_JOB_NUM_NODES", "SLURM_NNODES"),
    ("GPUS_PER_NODE", "NPROC_PER_NODE", "GPUS"),
)


def world_size_of(script: Script, text: str) -> int | None:
    """Nodes times GPUs in a node: from torchrun's flags, else sbatch's, else variables."""
    found = [_from_flags(words) for words in script.commands]
    nodes = next((n for n, _ in found if n), None)
    per_node = next((g for _, g in found if g), None)
    directives = dict(_DIRECTIVE.findall(text))
    nodes = nodes or _number(directives.get("--nodes") or directives.get("-N"))
    per_node = per_node or next(
        (n for flag in _PER_NODE if (n := _number(directives.get(flag)))), None
    )
    nodes = nodes or _variable(script, _VARIABLES[0])
    per_node = per_node or _variable(script, _VARIABLES[1])
    if nodes and per_node:
        return nodes * per_node
    return _variable(script, ("WORLD_SIZE",))


def _from_flags(words: tuple[Word, ...]) -> tuple[int | None, int | None]:
    nodes = per_node = None
    for i, word in enumerate(words):
        flag, equals, value = word.text.partition("=")
        flag = flag.replace("_", "-") if flag.startswith("--") else flag
        if not equals:
            value = words[i + 1].text if i + 1 < len(words) else ""
        if flag in _NODES:
            nodes = nodes or _number(value)
        elif flag in _PER_NODE:
            per_node = per_node or _number(value)
    return nodes, per_node


def _variable(script: Script, names: tuple[str, ...]) -> int | None:
    for name in names:
        words = script.variables.get(name, ())
        if len(words) == 1 and words[0].unknown is None and (number := _number(words[0].text)):
            return number
    return None


def _number(text: str | None) -> int | None:
    """The whole number at the end of ``8``, ``gpu:8`` or ``4:8``; None where there is none."""
    match = re.fullmatch(r"(?:.*:)?(\d{1,7})", text or "")
    return int(match.group(1)) or None if match else None
