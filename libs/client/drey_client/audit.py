"""The record of a restore: who, from where, by which plan, and what became of each value."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from drey.audit.v1.audit_pb2 import AuditEvent
    from drey.restore.v1.restore_pb2 import Plan, Restore, RestoreItem


@dataclass(frozen=True, slots=True)
class AuditedRestore:
    """All that is kept of one restore.

    `acts`: on it and on its plan, in their order. `items`: PVs that were, or should be, written.
    """

    restore: Restore
    plan: Plan
    acts: list[AuditEvent]
    items: list[RestoreItem]

    @property
    def executed_from(self) -> str:
        """Address from which it was executed; empty where none is known."""
        own = _own_target(self.restore)
        return next((act.address for act in self.acts if act.target == own and act.address), "")


def record_targets(restore: Restore) -> tuple[str, str]:
    """What the acts of a record are on, as `ListEventsRequest.target` names it."""
    return f"plans/{restore.plan_id}", _own_target(restore)


def _own_target(restore: Restore) -> str:
    return f"restores/{restore.id}"


def make_record(
    restore: Restore, plan: Plan, acts: Iterable[AuditEvent], items: Iterable[RestoreItem]
) -> AuditedRestore:
    """The record of what was read: acts in any order, items with their values whole."""
    written = [item for item in items if item.HasField("send_time") or item.HasField("target")]
    return AuditedRestore(restore, plan, sorted(acts, key=lambda act: act.sequence), written)
