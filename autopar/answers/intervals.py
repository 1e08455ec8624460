"""How sure the shipped calibration is of a plan that it priced."""

from dataclasses import replace
from math import isclose

import numpy as np

from autopar.launchers.plan import Plan
from cost_models.calibrate.calibration import levels_of, load_calibration
from cost_models.calibrate.uncertainty import interval, log_sd
from cost_models.equations.constants import Constants
from cost_models.equations.memory import memory_cost
from cost_models.equations.step import StepCost, step_cost
from cost_models.specs.strategy import Strategies
from cost_models.specs.units import Floats

_SAME = 1e-9
"""Relative difference of two times that are one."""


def with_intervals(plan: Plan) -> Plan:
    """The plan, its prediction with central 80 % intervals of step time and memory.

    Nothing is added to a prediction that has them, or that the shipped calibration does
    not make: one's own calibration is not in the document that a plan is read from.
    """
    p = plan.prediction
    if p is None or p.step_time_low_s is not None:
        return plan
    calibration = load_calibration()
    constants = calibration.constants(plan.cluster.gpu, plan.workload.framework)
    columns = Strategies.of([plan.strategy])

    def cost(c: Constants) -> StepCost:
        return step_cost(plan.model, plan.cluster, plan.workload, columns, c, breakdown=False)

    def log_time(c: Constants) -> Floats:
        return np.log(cost(c).step_time_s)

    def log_memory(c: Constants) -> Floats:
        return np.log(memory_cost(plan.model, plan.workload, columns, c).total_bytes)

    here = cost(constants)
    if not isclose(float(here.step_time_s[0]), p.step_time_s, rel_tol=_SAME):
        return plan
    levels = [levels_of(plan.cluster.gpu, plan.workload.framework)]
    one = np.zeros(1, dtype=np.int64)
    time_sd = log_sd(log_time, constants, calibration, levels, one, calibration.time_spread)
    spread = calibration.memory_spread
    memory_sd = log_sd(log_memory, constants, calibration, levels, one, spread)
    time = interval(here.step_time_s, time_sd)
    memory = interval(here.memory.total_bytes, memory_sd)
    return replace(
        plan,
        prediction=replace(
            p,
            step_time_low_s=float(time.low[0]),
            step_time_high_s=float(time.high[0]),
            memory_low_bytes=float(memory.low[0]),
            memory_high_bytes=float(memory.high[0]),
        ),
    )
