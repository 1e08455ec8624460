"""The script that every node runs, whatever started it there.

It expects NODE_RANK and MASTER_ADDR (and MASTER_PORT where 29500 is taken), which are
what schedulers know and launchers want.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from autopar.launchers import dossier
from autopar.launchers.formats.shell import quoted
from autopar.launchers.knobs import comments
from autopar.launchers.plan import Emission, Plan
from cost_models.specs.errors import SpecError

SCRIPT = "run.sh"


@dataclass(frozen=True, slots=True)
class Nodes:
    """How many nodes of how many GPUs the plan fills."""

    n_nodes: int
    gpus_per_node: int


def nodes_of(plan: Plan) -> Nodes:
    """Whole nodes; raises SpecError where the ranks do not fill them."""
    world, each = plan.strategy.world_size, plan.cluster.gpus_per_node
    if world > each and world % each:
        raise SpecError(
            f"strategy uses {world} GPUs, no multiple of the {each} in a node",
            hint="schedulers hand out whole nodes",
        )
    return Nodes(max(world // each, 1), min(world, each))


def node_script(emission: Emission, plan: Plan) -> str:
    """Text of ``run.sh``."""
    command = dossier(emission.launcher).start.node.rstrip()
    nodes = nodes_of(plan)
    title = comments([f"One node of {nodes.n_nodes}: {emission.targets}."])
    return f"""#!/usr/bin/env bash
{title[0]}
set -euo pipefail
cd "$(dirname "${{BASH_SOURCE[0]}}")"
export NNODES=${{NNODES:-{nodes.n_nodes}}}
export GPUS_PER_NODE=${{GPUS_PER_NODE:-{nodes.gpus_per_node}}}
export NODE_RANK=${{NODE_RANK:-0}}
export MASTER_ADDR=${{MASTER_ADDR:-localhost}}
export MASTER_PORT=${{MASTER_PORT:-29500}}
{command}
"""


def with_files(emission: Emission, files: Mapping[str, str]) -> Emission:
    """The emission with more files; raises SpecError where one is there already."""
    for name in files:
        if name in emission.files:
            raise SpecError(f"{name} is already one of the files of {emission.launcher}")
    return replace(emission, files={**emission.files, **files})


def self_contained(emission: Emission, plan: Plan, head: str) -> str:
    """A script that writes all files into a folder of its own and runs ``run.sh`` there.

    For schedulers that start containers without a shared folder.  ``head`` sets NODE_RANK
    and MASTER_ADDR.
    """
    parts = ["set -euo pipefail", head, "work=$(mktemp -d)", 'cd "$work"']
    for name, text in {**emission.files, SCRIPT: node_script(emission, plan)}.items():
        if "/" in name:
            parts.append(f"mkdir -p {quoted(name.rpartition('/')[0])}")
        end = _delimiter(text)
        body = text if text.endswith("\n") else f"{text}\n"
        parts.append(f"cat > {quoted(name)} <<'{end}'\n{body}{end}")
    parts.append(f"exec bash {SCRIPT}")
    return "\n".join(parts) + "\n"


def _delimiter(text: str) -> str:
    """A word that no line of the text is."""
    lines, end = set(text.splitlines()), "END_OF_FILE"
    while end in lines:
        end += "_"
    return end


def job_name(plan: Plan) -> str:
    """A name that Slurm, DNS and SkyPilot accept, from the model's.

    It starts and ends with a letter or digit, and has at most 40 characters.
    """
    plain = re.sub(r"[^a-z0-9]+", "-", plan.model.name.lower()).strip("-")[:32].strip("-")
    return f"autopar-{plain}" if plain else "autopar"
