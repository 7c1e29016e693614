"""The decision of a second person on a plan."""

from __future__ import annotations

from dataclasses import dataclass

from drey_core.errors import (
    DreyError,
    FailedPrecondition,
    PermissionDenied,
    Reason,
)
from drey_restore.domain.kinds import ApprovalState


@dataclass(frozen=True)
class Approval:
    """Of a plan that writes `pvs` PVs under approval, the first of them `first_pv`.

    `state` is what was decided; times are nanoseconds since 1970 UTC (0: not yet).
    """

    id: str
    plan_id: str
    digest: str
    requester: str
    requester_role: str
    pvs: int
    first_pv: str
    create_time_ns: int
    expire_time_ns: int
    state: ApprovalState = ApprovalState.PENDING
    approver: str = ""
    approver_role: str = ""
    reason: str = ""
    decide_time_ns: int = 0

    def state_at(self, now_ns: int) -> ApprovalState:
        """Where it stands; a rejection holds for ever."""
        if self.state != ApprovalState.REJECTED and now_ns >= self.expire_time_ns:
            return ApprovalState.EXPIRED
        return self.state

    def missing_approval(self, now_ns: int) -> DreyError | None:
        """What stands against executing the plan; None: nothing."""
        state = self.state_at(now_ns)
        if state == ApprovalState.APPROVED:
            return None
        if state == ApprovalState.REJECTED:
            return FailedPrecondition(
                f"plan {self.plan_id} was rejected by {self.approver}: {self.reason}. Make a new"
                " plan",
                reason=Reason.WRONG_STATE,
                metadata={"state": state.name, "rejected_by": self.approver},
            )
        over = f"the approval of {self.approver} is over, and it " if self.approver else ""
        return FailedPrecondition(
            f"plan {self.plan_id}: {over}waits for the approval of a second person, because it"
            f" writes {self.pvs} PVs that are restored with approval only, the first is"
            f" {self.first_pv}. Somebody other than {self.requester} approves it with: drey"
            f" restore approve {self.plan_id}",
            reason=Reason.APPROVAL_REQUIRED,
            metadata={
                "plan_id": self.plan_id,
                "pvs": str(self.pvs),
                "first_pv": self.first_pv,
                "state": state.name,
            },
        )

    def refuse_own(self, principal: str) -> None:
        """OWN_PLAN: whoever made a plan is no second person, by whichever key."""
        if principal == self.requester:
            raise PermissionDenied(
                f"plan {self.plan_id} is {principal}'s own: a second person decides on it",
                reason=Reason.OWN_PLAN,
                metadata={"plan_id": self.plan_id, "principal": principal},
            )
