"""torchrun by hand: ``run.sh`` on every node, with NODE_RANK and MASTER_ADDR set."""

from autopar.launchers.plan import Emission, Plan
from autopar.launchers.wrappers.node import SCRIPT, node_script, with_files


def wrap(emission: Emission, plan: Plan) -> Emission:
    """The files and ``run.sh``."""
    return with_files(emission, {SCRIPT: node_script(emission, plan)})
