"""A simulated accelerator: a real IOC process on loopback, found by nobody else."""

from drey_machine.machine import Machine
from drey_machine.plant import KINDS, Plant, SimPv

__all__ = ["KINDS", "Machine", "Plant", "SimPv"]
