"""Every fault that the chaos can cause, by name."""

from __future__ import annotations

from tests.chaos.faults import broker, clock, database, disk, network, people, processes
from tests.chaos.faults.fault import Fault, Hit, Target

FAULTS: tuple[Fault, ...] = (
    *processes.FAULTS,
    *broker.FAULTS,
    *network.FAULTS,
    *database.FAULTS,
    *disk.FAULTS,
    *people.FAULTS,
    *clock.FAULTS,
)

__all__ = ["FAULTS", "Fault", "Hit", "Target"]
