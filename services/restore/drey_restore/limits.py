"""What bounds a restore, and the clock that it goes by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Nanoseconds since 1970 UTC."""


@dataclass(frozen=True)
class Limits:
    """Times in seconds; writes announced and sent at a time, in all and for each IOC.

    `guard_silence_s`: a PV of a guard that does not answer for so long cannot be known.
    `batches_per_ioc`: with so many batches on their way that take long, an IOC is sent no other.
    """

    connect_s: float
    read_s: float
    chunk: int
    per_ioc: int = 2048
    batches_per_ioc: int = 8
    guard_silence_s: float = 3.0
