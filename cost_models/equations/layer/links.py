"""NVLink and NIC as training sees them, and collectives of a group of ranks over both.

The seconds are those of :mod:`cost_models.equations.collectives`; its bandwidth B is here the
calibrated share of the data sheet's.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cost_models.counting.traffic import Group
from cost_models.counting.work import Work
from cost_models.equations.collectives import Link, all_gather_s, all_reduce_s, all_to_all_s, send_s
from cost_models.equations.constants import Constants
from cost_models.specs.units import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Links:
    """NVLink inside a domain, one rank's share of the NICs between domains."""

    intra: Link
    inter: Link

    def all_gather_s(self, message_bytes: Floats, group: Group) -> Floats:
        """Seconds until every rank of ``group`` holds the whole message, or has scattered it."""
        return all_gather_s(
            message_bytes, group.inside, group.outside, intra=self.intra, inter=self.inter
        )

    def all_reduce_s(self, message_bytes: Floats, group: Group) -> Floats:
        """Seconds until every rank of ``group`` holds the reduced whole."""
        return all_reduce_s(
            message_bytes, group.inside, group.outside, intra=self.intra, inter=self.inter
        )

    def all_to_all_s(self, message_bytes: Floats, group: Group) -> Floats:
        """Seconds until every rank of ``group`` has its slice of every other's message."""
        return all_to_all_s(
            message_bytes, group.inside, group.outside, intra=self.intra, inter=self.inter
        )

    def send_s(self, message_bytes: Floats, crosses: ArrayLike) -> Floats:
        """Seconds of one message to a neighbour, outside the NVLink domain where ``crosses``."""
        return np.where(
            crosses, send_s(message_bytes, self.inter), send_s(message_bytes, self.intra)
        )


def links(work: Work, c: Constants) -> Links:
    """The wires of ``work.machine`` at the calibrated share of their data sheets."""
    nvlink = work.machine.nvlink_Bps
    return Links(
        intra=Link(
            latency_s=c.nvlink_latency_s,
            bandwidth_Bps=nvlink * c.nvlink_fraction,
            half_size_bytes=c.nvlink_half_size_bytes,
            switch_Bps=nvlink * c.switch_fraction * work.machine.has_switch,
            launch_s=c.collective_launch_s,
        ),
        inter=Link(
            latency_s=c.nic_latency_s,
            bandwidth_Bps=work.machine.nic_Bps * c.nic_fraction,
            half_size_bytes=c.nic_half_size_bytes,
            launch_s=c.collective_launch_s,
        ),
    )
