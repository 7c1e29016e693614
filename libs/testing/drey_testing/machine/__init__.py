"""A simulated accelerator: a real IOC process on loopback, found by nobody else."""

from drey_testing.machine.machine import Machine
from drey_testing.machine.plant import KINDS, Plant, SimPv

__all__ = ["KINDS", "Machine", "Plant", "SimPv"]
