"""The part of a change of the catalog that is about policies by device and by tag."""

from __future__ import annotations

from dataclasses import replace

from drey_core.errors import AlreadyExists, NotFound
from drey_snapshot.catalog.domain.changes import CatalogState, Changes
from drey_snapshot.catalog.domain.default_policies import (
    DefaultPolicy,
    PolicyBook,
    refuse_new_contradictions,
    rows_of_subject,
)


class PolicyEdit:
    """One policy at a time: an edit makes, changes or deletes one. See `Edit`."""

    state: CatalogState
    version: int
    now_ns: int
    _changes: Changes

    def policy(self, id: str, path: str = "id") -> DefaultPolicy:
        """The policy of an id. Raises `NotFound`."""
        held_policy = self.state.policies.by_id.get(id)
        if held_policy is None:
            raise NotFound(
                f"no policy of a device or a tag has the id {id}",
                field=path,
                metadata={"resource": "policy", "id": id},
            )
        return held_policy

    def create_policy(self, policy: DefaultPolicy) -> DefaultPolicy:
        """Add one. Raises `AlreadyExists`, and POLICY_CONTRADICTION."""
        book = self.state.policies
        other = book.by_tag.get(policy.tag) if policy.tag else book.by_device.get(policy.device)
        if other is not None:
            raise AlreadyExists(
                "its device or tag has a policy already: change that one",
                field="policy.tag" if policy.tag else "policy.device",
                metadata={"resource": "policy", "name": other.id},
            )
        return self._set_policy(policy)

    def update_policy(self, before: DefaultPolicy, after: DefaultPolicy) -> DefaultPolicy:
        """Change what it says. Raises POLICY_CONTRADICTION."""
        if (after.policy, after.comment) == (before.policy, before.comment):
            return before
        return self._set_policy(after)

    def delete_policy(self, policy: DefaultPolicy) -> None:
        """Delete it. Raises POLICY_CONTRADICTION."""
        self._refuse_contradictions(
            policy, self.state.policies.without_policy(policy.id), is_set=False
        )
        self._changes.dropped_policies.append(policy)

    def _set_policy(self, policy: DefaultPolicy) -> DefaultPolicy:
        policy = replace(policy, version=self.version, update_time_ns=self.now_ns)
        self._refuse_contradictions(policy, self.state.policies.with_policy(policy))
        self._changes.policies.append(policy)
        return policy

    def _refuse_contradictions(
        self, policy: DefaultPolicy, after: PolicyBook, *, is_set: bool = True
    ) -> None:
        table, tags = self.state.table, self.state.tags
        rows = rows_of_subject(table, policy)
        refuse_new_contradictions(
            table, tags, self.state.policies, after, rows, policy if is_set else None
        )
