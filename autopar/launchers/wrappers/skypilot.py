"""SkyPilot: ``sky launch skypilot.yaml`` from the folder of the files."""

import re
from collections.abc import Mapping

from autopar.launchers.plan import Emission, Plan
from autopar.launchers.wrappers.kubernetes import document
from autopar.launchers.wrappers.node import SCRIPT, job_name, node_script, nodes_of, with_files

FILE = "skypilot.yaml"
_ACCELERATORS: Mapping[str, str] = {
    "a100-40": "A100",
    "a100-80": "A100-80GB",
    "h100-sxm": "H100",
    "h100": "H100",
    "h200": "H200",
    "h800": "H800",
    "b200": "B200",
    "gb200": "GB200",
    "mi300x": "MI300X",
}
"""SkyPilot's names of our GPUs; others are written in capitals up to the first dash."""
_RUN = f"""export NODE_RANK="$SKYPILOT_NODE_RANK"
MASTER_ADDR=$(echo "$SKYPILOT_NODE_IPS" | head -n 1)
export MASTER_ADDR
exec bash {SCRIPT}
"""


def wrap(emission: Emission, plan: Plan) -> Emission:
    """The files, ``run.sh`` and ``skypilot.yaml``."""
    nodes = nodes_of(plan)
    name = plan.cluster.gpu.name.lower()
    accelerator = (
        _ACCELERATORS.get(name) or re.sub(r"[^a-z0-9]+.*", "", name, flags=re.DOTALL).upper()
    )
    values = {
        "name": job_name(plan),
        "num_nodes": nodes.n_nodes,
        "workdir": ".",
        "resources": {
            "accelerators": f"{accelerator}:{nodes.gpus_per_node}",
            "network_tier": "best",
        },
        "run": _RUN,
    }
    files = {SCRIPT: node_script(emission, plan), FILE: document(emission, plan, values)}
    return with_files(emission, files)
