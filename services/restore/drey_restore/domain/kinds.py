"""The enumerations of the contract that the domain speaks of, with its numbers."""

from __future__ import annotations

from enum import IntEnum


class Skip(IntEnum):
    """Why a plan leaves a PV out; `drey.restore.v1.SkipReason`."""

    NONE = 0
    EQUAL = 1
    READ_ONLY = 2
    NO_SETPOINT = 3
    DISCONNECTED = 4
    NOT_WRITABLE = 5
    NOT_IN_SNAPSHOT = 6
    DELETED = 7
    TYPE_CHANGED = 8
    COUNT_TOO_LARGE = 9
    LABEL_GONE = 10
    OUT_OF_RANGE = 11
    NOT_FINITE = 12
    EXCLUDED = 13
    STALE = 14
    DUPLICATE_ADDRESS = 15
    POLICY = 16
    UNSUPPORTED = 17
    CHANGED_SINCE = 18
    INVALID_SOURCE = 19


SKIPS = max(Skip) + 1


class Verdict(IntEnum):
    """What became of a PV; `drey.restore.v1.Verdict`."""

    UNSPECIFIED = 0
    PENDING = 1
    EQUAL_ALREADY = 2
    WRITTEN = 3
    VERIFIED = 4
    NOT_REACHED = 5
    REFUSED = 6
    TIMED_OUT = 7
    DISCONNECTED = 8
    SKIPPED = 9
    UNKNOWN = 10
    NOT_SENT = 11
    NO_LONGER_EQUAL = 12
    IN_ALARM = 13
    RAMP_STOPPED = 14


VERDICTS = len(Verdict)


class Completion(IntEnum):
    """How completion is judged; `drey.catalog.v1.Completion`."""

    DEFAULT = 0
    SENT = 1
    PUT_CALLBACK = 2
    READBACK = 3
    DONE_CHANNEL = 4


class PlanState(IntEnum):
    """Where a plan stands; `drey.restore.v1.PlanState`."""

    UNSPECIFIED = 0
    READY = 1
    EXECUTED = 2
    EXPIRED = 3
    WAITS_FOR_APPROVAL = 4
    REJECTED = 5


class ApprovalState(IntEnum):
    """Where an approval stands; `drey.restore.v1.ApprovalState`. EXPIRED follows from the time."""

    UNSPECIFIED = 0
    PENDING = 1
    APPROVED = 2
    REJECTED = 3
    EXPIRED = 4


class RestoreState(IntEnum):
    """Where a restore stands; `drey.restore.v1.RestoreState`."""

    UNSPECIFIED = 0
    WAITING = 1
    WRITING = 2
    VERIFYING = 3
    COMPLETED = 4
    ABORTED = 5
    INTERRUPTED = 6
    FAILED = 7
    PAUSED = 8

    @property
    def ended(self) -> bool:
        """Whether nothing further happens to it on its own."""
        return self in _ENDED


_ENDED = frozenset(
    {
        RestoreState.COMPLETED,
        RestoreState.ABORTED,
        RestoreState.INTERRUPTED,
        RestoreState.FAILED,
    }
)

TRANSITIONS: dict[RestoreState, frozenset[RestoreState]] = {
    RestoreState.WAITING: frozenset(
        {
            RestoreState.WRITING,
            RestoreState.FAILED,
            RestoreState.ABORTED,
            RestoreState.INTERRUPTED,
        }
    ),
    RestoreState.WRITING: frozenset(
        {
            RestoreState.PAUSED,
            RestoreState.VERIFYING,
            RestoreState.ABORTED,
            RestoreState.INTERRUPTED,
        }
    ),
    RestoreState.PAUSED: frozenset(
        {
            RestoreState.WRITING,
            RestoreState.VERIFYING,
            RestoreState.ABORTED,
            RestoreState.INTERRUPTED,
        }
    ),
    RestoreState.VERIFYING: frozenset(
        {RestoreState.COMPLETED, RestoreState.ABORTED, RestoreState.INTERRUPTED}
    ),
}
"""What may follow what. FAILED means that nothing was sent, so only WAITING leads there."""


def all_verified(counts: list[int]) -> bool:
    """Every PV to write was verified, and none was left out but those equal already."""
    good = counts[Verdict.VERIFIED] + counts[Verdict.EQUAL_ALREADY]
    return good == sum(counts) and good > 0
