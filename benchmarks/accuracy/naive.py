"""The baseline to beat: every GPU reaches one fixed MFU, whatever the layout.

t = model FLOPs / (GPUs * peak * MFU),   MFU = the median of the training runs          (1)
"""

import numpy as np

from benchmarks.measured import Bools, Measured
from cost_models.specs.units import Floats


def naive_step_time_s(measured: Measured, trained: Bools) -> Floats:
    """Equation (1) with the MFU of the same GPU where it was trained on, else of all."""
    batch = measured.batch
    first = np.unique(batch.owner, return_index=True)[1]
    gpus = np.array([run.cluster.n_gpus for run in measured.runs])
    names = np.array([run.cluster.gpu.name for run in measured.runs])
    ideal = batch.work.model_flop[first] / (gpus * batch.work.machine.gemm_flop_per_s[first])
    mfu = ideal / measured.step_time_s
    used = trained & measured.healthy & np.isfinite(mfu)
    found = np.full(len(gpus), float(np.median(mfu[used])))
    for name in np.unique(names[used]):
        found[names == name] = np.median(mfu[used & (names == name)])
    return np.asarray(ideal / found)
