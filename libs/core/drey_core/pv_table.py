"""PVs as columns: what a file of PVs holds, before it is known to the catalog."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from drey_core.errors import InvalidArgument, Reason

F8 = NDArray[np.float64]
Tag = tuple[str, str]
"""(group, tag) by name."""

MAX_PROBLEMS = 1000


class PvProtocol(IntEnum):
    """How a PV's channels are reached; the numbers of `drey.catalog.v1.Protocol`."""

    UNSPECIFIED = 0
    CA = 1
    PVA = 2
    LIVE = 3


_SCHEMES = {"ca": PvProtocol.CA, "pva": PvProtocol.PVA}


def split_scheme(address: str) -> tuple[PvProtocol, str]:
    """The protocol that an address begins with, and the rest: `pva://NAME`, as others write it.

    UNSPECIFIED, and the whole, where it begins with none of them.
    """
    scheme, mark, rest = address.partition("://")
    protocol = _SCHEMES.get(scheme.casefold()) if mark else None
    return (PvProtocol.UNSPECIFIED, address) if protocol is None else (protocol, rest)


class CompletionMode(IntEnum):
    """How a write is judged complete; the numbers of `drey.catalog.v1.Completion`."""

    UNSPECIFIED = 0
    SENT = 1
    PUT_CALLBACK = 2
    READBACK = 3
    DONE_CHANNEL = 4


@dataclass(frozen=True, slots=True)
class Policy:
    """How a restore treats a PV; None, UNSPECIFIED or empty: by the defaults.

    Times in seconds, rates in units per second, the rest in the units of the channel.
    """

    completion: CompletionMode = CompletionMode.UNSPECIFIED
    timeout_s: float | None = None
    settle_s: float | None = None
    stage: int | None = None
    done_channel: str = ""
    done_value: float | None = None
    ramp_rate: float | None = None
    ramp_step: float | None = None
    allowed_low: float | None = None
    allowed_high: float | None = None


NO_POLICY = Policy()


@dataclass(slots=True)
class FileTable:
    """n PVs, one entry a column each; empty texts mean none.

    `line`: line of the file at which the row begins, from 1 (0 where there is no file). `name` is
    never empty. A PV without a setpoint address can only be read. Tolerances have shape (n,), 0
    is exact. `tags` are ordered and each once. `groups`: tag groups that the file names, in its
    order, those without any tag included. `columns`: reserved columns that the file has, so that
    an import leaves alone what the file does not speak of.
    """

    line: list[int]
    name: list[str]
    setpoint: list[str]
    readback: list[str]
    device: list[str]
    description: list[str]
    protocol: list[PvProtocol]
    read_only: list[bool]
    setpoint_absolute: F8
    setpoint_relative: F8
    readback_absolute: F8
    readback_relative: F8
    policy: list[Policy]
    tags: list[tuple[Tag, ...]]
    groups: tuple[str, ...] = ()
    columns: frozenset[str] = field(default_factory=frozenset)

    def __len__(self) -> int:
        return len(self.name)


@dataclass(frozen=True, slots=True)
class CellProblem:
    """What is wrong with one cell: line from 1, name of the column (or empty), and why."""

    line: int
    column: str
    message: str
    name: str = ""
    """Name of the PV, as far as it is known."""
    reason: Reason = Reason.INVALID_FIELD


@dataclass(slots=True)
class Problems:
    """The problems of a file, the first `MAX_PROBLEMS` of them kept; `total` counts all."""

    found: list[CellProblem] = field(default_factory=list)
    total: int = 0

    def add_problem(
        self, line: int, column: str, message: str, *, reason: Reason = Reason.INVALID_FIELD
    ) -> None:
        """Note one problem."""
        self.total += 1
        if len(self.found) < MAX_PROBLEMS:
            self.found.append(CellProblem(line, column, message, reason=reason))


def malformed_line(line: int, message: str, column: str = "") -> InvalidArgument:
    """The refusal of a whole file that cannot be read from `line` on."""
    return InvalidArgument(
        f"line {line}: {message}",
        reason=Reason.MALFORMED_FILE,
        field="content",
        metadata={"line": str(line), "column": column},
    )
