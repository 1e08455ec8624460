"""Bytes over all GPUs of a job: what the whole model costs, not what one GPU sees.

With R_r the terms of pipeline rank r (:mod:`cost_models.equations.memory`), each of its
world / pp ranks alike:

    total = world / pp  sum over r of R_r                                          (1)

======  ================================  =======  ===========================
symbol  meaning                           unit     name here
======  ================================  =======  ===========================
R_r     a term of pipeline rank r         bytes    ``MemoryCost.by_rank[r]``
world   GPUs of the job                   ranks    ``strategy.world_size``
pp      pipeline stages                   ranks    ``strategy.pp``
======  ================================  =======  ===========================
"""

from cost_models.counting.partition import even_stage_layers
from cost_models.equations.constants import Constants
from cost_models.equations.memory import MEMORY_TERMS
from cost_models.equations.step import step_cost
from cost_models.specs.cluster import Cluster
from cost_models.specs.model import ModelSpec
from cost_models.specs.strategy import Strategies, Strategy
from cost_models.specs.workload import Workload


def job_memory_bytes(
    model: ModelSpec,
    cluster: Cluster,
    workload: Workload,
    strategy: Strategy,
    constants: Constants,
) -> dict[str, float]:
    """Equation (1) term by term; every GPU at its own peak."""
    layers = strategy.stage_layers or even_stage_layers(
        model, workload.framework, strategy.pp, strategy.vpp
    )
    # given its layers, a pipeline is priced rank by rank instead of at its extremes
    columns = Strategies.of(strategy.with_(stage_layers=layers))
    memory = step_cost(model, cluster, workload, columns, constants).memory
    ranks_alike = strategy.world_size // strategy.pp
    return {
        name: ranks_alike * sum(float(terms[name].sum()) for terms in memory.by_rank)
        for name in MEMORY_TERMS
    }
