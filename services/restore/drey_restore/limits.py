"""What bounds a restore, and the clock that it goes by."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

Clock: TypeAlias = Callable[[], int]
"""Nanoseconds since 1970 UTC."""


@dataclass(frozen=True)
class Limits:
    """Times in seconds, and writes sent at a time."""

    connect_s: float
    read_s: float
    chunk: int
