"""Plans and restores as resources, without their items."""

from __future__ import annotations

from dataclasses import dataclass

from drey_core.errors import Reason
from drey_restore.domain.approval import Approval
from drey_restore.domain.kinds import (
    VERDICTS,
    ApprovalState,
    PlanState,
    RestoreState,
    Skip,
    Verdict,
    all_verified,
)
from drey_restore.domain.waiting import StageWait

RECIPE = 3
"""Number of the recipe of the digest of a plan; `domain.digest` has the recipe."""


@dataclass(frozen=True)
class Guard:
    """A condition over PVs."""

    expression: str
    description: str = ""


@dataclass(frozen=True)
class Gate:
    """What must hold after a stage: at most so many failed, or a guard (both None: nothing)."""

    after_stage: int
    max_failed: int | None = None
    guard: Guard | None = None


@dataclass(frozen=True)
class Rollback:
    """When a restore goes back on its own; `max_failed` None: never for failures."""

    max_failed: int | None = None
    on_guard: bool = False


@dataclass(frozen=True)
class Rules:
    """The rules of a plan, which lie within its digest."""

    guards: tuple[Guard, ...] = ()
    gates: tuple[Gate, ...] = ()
    rollback: Rollback | None = None

    def most_failed(self, stage: int) -> int | None:
        """How many writes of a stage may be not verified before the next begins; None: any."""
        limits = [gate.max_failed for gate in self.gates if gate.after_stage == stage]
        return min((most for most in limits if most is not None), default=None)

    def must_hold(self, first: int, following: int) -> list[Guard]:
        """What must hold between the writes of stage `first` and those of `following`."""
        return [
            gate.guard
            for gate in self.gates
            if gate.guard is not None and first <= gate.after_stage < following
        ]


@dataclass(frozen=True)
class PlanRecord:
    """A plan. `skips` by the number of the reason; times in nanoseconds since 1970 UTC.

    `spec` is what it was made of, as a message of the contract; `recipe` that of its digest, 1 of
    those that nobody else can compute. Only those of the newest recipe are executed.
    `stage_writes[i]` are the writes of `stages[i]`, lowest first.
    """

    id: str
    digest: str
    snapshot_id: str
    pvs: int
    writes: int
    skips: tuple[int, ...]
    exact: bool
    principal: str
    role: str
    comment: str
    create_time_ns: int
    expire_time_ns: int
    undoes_restore_id: str | None = None
    restore_id: str | None = None
    recipe: int = RECIPE
    spec: bytes = b""
    rules: Rules = Rules()
    stages: tuple[int, ...] = ()
    stage_writes: tuple[int, ...] = ()
    stage_waits: tuple[StageWait, ...] = ()
    approval: Approval | None = None

    @property
    def first_verdicts(self) -> list[int]:
        """Verdicts of its PVs before anything is sent, by their number."""
        counts = [0] * VERDICTS
        counts[Verdict.PENDING] = self.writes
        counts[Verdict.EQUAL_ALREADY] = self.skips[Skip.EQUAL]
        counts[Verdict.SKIPPED] = self.pvs - self.writes - self.skips[Skip.EQUAL]
        return counts

    def state(self, now_ns: int) -> PlanState:
        """Where it stands at `now_ns`."""
        if self.restore_id is not None:
            return PlanState.EXECUTED
        approval = (
            ApprovalState.APPROVED if self.approval is None else self.approval.state_at(now_ns)
        )
        if approval == ApprovalState.REJECTED:
            return PlanState.REJECTED
        if self.recipe < RECIPE or now_ns >= self.expire_time_ns:
            return PlanState.EXPIRED
        if approval != ApprovalState.APPROVED:
            return PlanState.WAITS_FOR_APPROVAL
        return PlanState.READY


@dataclass(frozen=True)
class RestoreRecord:
    """A restore. `verdicts` by the number of the verdict; `start_by_ns`: no first write after.

    `also_unknown`: it may send again what the one that it continues may have sent.
    """

    id: str
    plan_id: str
    plan_digest: str
    snapshot_id: str
    state: RestoreState
    verdicts: tuple[int, ...]
    principal: str
    role: str
    comment: str
    job_id: str
    start_by_ns: int
    write_timeout_ns: int
    verify_timeout_ns: int
    accept_moved: bool
    create_time_ns: int
    max_unreachable: int | None = None
    continues_restore_id: str | None = None
    also_unknown: bool = False
    continued_by_restore_id: str | None = None
    interfered: int = 0
    roll_back_requested: bool = False
    rollback_restore_id: str | None = None
    rollback_error_reason: Reason = Reason.UNSPECIFIED
    rollback_error_message: str = ""
    abort_requested: bool = False
    abort_reason: str = ""
    pause_requested: bool = False
    error_reason: Reason = Reason.UNSPECIFIED
    error_message: str = ""
    start_time_ns: int = 0
    end_time_ns: int = 0
    revision: int = 1
    may_still_fire: int = 0

    @property
    def all_verified(self) -> bool:
        """Every PV to write was verified, and none was left out but those equal already."""
        return self.state == RestoreState.COMPLETED and all_verified(list(self.verdicts))


@dataclass(frozen=True)
class Chosen:
    """Which plans or restores a list shows; None or empty: any. Times in nanoseconds, half open."""

    snapshot_id: str | None = None
    principal: str = ""
    states: list[int] | None = None
    from_ns: int | None = None
    to_ns: int | None = None


@dataclass(frozen=True)
class Unanswered:
    """Writes that were sent and never answered, as columns; `circuits`: `host:port`, or empty.

    `fields`: what they write, by the real name of the record.
    """

    numbers: list[int]
    names: list[str]
    addresses: list[str]
    fields: list[str]
    circuits: list[str]
    sent_ns: list[int]


@dataclass(frozen=True)
class HeldWrite:
    """A write of an ended restore that may still take place, and so holds its field."""

    restore_id: str
    principal: str
    number: int
    name: str
    address: str
    field: str
    circuit: str
    sent_time_ns: int
