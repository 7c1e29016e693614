"""Who may do what: the permissions, and the roles that hold them. Denied by default.

A permission is named `<area>.<resource>.<verb>`; each method of the contracts demands one, and some
acts within a method one more. A role is a named set of them, and a key holds one or more roles.
Looking, taking snapshots, editing the catalog, restoring, approving, keeping and administering are
apart; each role but viewer includes looking, for nobody can act on what they may not see.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from drey_core.errors import InvalidArgument

VIEWER = "viewer"
ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Role:
    """A named set of permissions."""

    name: str
    sentence: str
    permissions: frozenset[str]


def _split_permissions(text: str) -> frozenset[str]:
    return frozenset(text.split())


_LOOK = _split_permissions("""
    access.roles.list access.self.get
    catalog.devices.list catalog.policies.get catalog.pvs.export catalog.pvs.get catalog.pvs.list
    catalog.scopes.get catalog.scopes.list catalog.selectors.resolve catalog.tag_groups.list
    compare.states.compare
    control.shards.get
    directory.channels.resolve directory.pages.get directory.policies.get
    event.events.watch
    job.jobs.get job.jobs.list job.jobs.watch
    monitor.drift.watch monitor.status.get monitor.values.get monitor.values.watch
    policy.policies.get policy.policies.list
    reference.states.read
    restore.approvals.list
    restore.plans.get restore.plans.list restore.plans.read
    restore.restores.get restore.restores.list restore.restores.read restore.restores.watch
    snapshot.refusals.read
    snapshot.snapshots.get snapshot.snapshots.history snapshot.snapshots.list
    snapshot.snapshots.read snapshot.snapshots.verify
    system.contracts.get system.health.get system.health.watch
    system.server.get
""")
_OPERATE = _split_permissions("""
    job.jobs.cancel
    restore.plans.create
    snapshot.snapshots.delete snapshot.snapshots.take snapshot.snapshots.undelete
    snapshot.snapshots.update
""")
_EDIT = _split_permissions("""
    catalog.pvs.create catalog.pvs.delete catalog.pvs.import catalog.pvs.tag catalog.pvs.undelete
    catalog.pvs.update
    catalog.scopes.create catalog.scopes.delete catalog.scopes.undelete
    catalog.scopes.update
    catalog.tag_groups.create catalog.tag_groups.delete catalog.tag_groups.undelete
    catalog.tag_groups.update
    catalog.tags.create catalog.tags.delete catalog.tags.merge catalog.tags.undelete
    catalog.tags.update
    job.jobs.cancel
    policy.policies.create policy.policies.delete policy.policies.update
""")
_RESTORE = _split_permissions("""
    job.jobs.cancel job.jobs.cancel_any
    restore.plans.create restore.plans.execute
    restore.restores.abort restore.restores.pause restore.restores.resume
""")
_APPROVE = _split_permissions("restore.plans.approve restore.plans.reject")
_KEEP = _split_permissions("""
    snapshot.golden.clear snapshot.golden.set
    snapshot.snapshots.delete snapshot.snapshots.delete_any snapshot.snapshots.undelete
    snapshot.snapshots.update
""")
_ADMINISTER = _split_permissions("""
    access.keys.create access.keys.list access.keys.revoke
    audit.chain.verify audit.events.get audit.events.list audit.events.watch
    control.shards.release
    system.breakers.force
""")

PV_PERMISSIONS = _split_permissions("""
    catalog.pvs.create catalog.pvs.delete catalog.pvs.import catalog.pvs.tag catalog.pvs.undelete
    catalog.pvs.update
    restore.plans.approve restore.plans.create restore.plans.execute restore.plans.reject
    restore.restores.abort restore.restores.pause restore.restores.resume
    snapshot.snapshots.take
""")
"""Permissions of acts that name PVs: each is held against the selector of a limited grant."""
_OWN = _split_permissions("job.jobs.cancel")
"""Of what the caller has begun, which was held against their grants then."""
LIMITABLE = ("operator", "editor", "restorer", "approver")
"""Roles that may be granted for some PVs only."""

IN_METHODS = _split_permissions("job.jobs.cancel_any snapshot.snapshots.delete_any")
"""Permissions that no method demands as such: an act within one does."""

ROLES = {
    role.name: role
    for role in (
        Role(VIEWER, "Looks: values, catalog, snapshots, plans, restores, jobs, health.", _LOOK),
        Role(
            "operator",
            "Takes snapshots, labels any and deletes their own; makes plans; cancels their own"
            " jobs.",
            _LOOK | _OPERATE,
        ),
        Role(
            "editor",
            "Edits the catalog: PVs with addresses, read-only marks, tolerances and policies, tags,"
            " scopes, import; cancels their own jobs.",
            _LOOK | _EDIT,
        ),
        Role(
            "restorer",
            "Makes plans and executes them, which writes to the machine; aborts, pauses and resumes"
            " restores; cancels any job.",
            _LOOK | _RESTORE,
        ),
        Role("approver", "Approves plans, or rejects them.", _LOOK | _APPROVE),
        Role(
            "keeper",
            "Sets and clears golden marks; labels and deletes snapshots, whoever took them.",
            _LOOK | _KEEP,
        ),
        Role(
            ADMIN,
            "Does everything; alone handles keys and reads the audit.",
            _LOOK | _OPERATE | _EDIT | _RESTORE | _APPROVE | _KEEP | _ADMINISTER,
        ),
    )
}
"""Every role by name, the least first."""


@lru_cache(maxsize=256)
def permissions_of(roles: tuple[str, ...]) -> frozenset[str]:
    """What the holder of these roles may do; an unknown role gives nothing."""
    return frozenset().union(*(ROLES[r].permissions for r in roles if r in ROLES))


@lru_cache(maxsize=256)
def limited_permissions_of(roles: tuple[str, ...]) -> frozenset[str]:
    """What the holder of these roles may do where each is limited to some PVs.

    All acts that name PVs, which are then held against the limit, and all looking, which nobody
    limits. What is about no PVs, or about those of others too, takes a role without a limit.
    """
    return permissions_of(roles) & (_LOOK | PV_PERMISSIONS | _OWN)


def holders_of(permission: str) -> list[str]:
    """The roles that hold a permission, the least first; none holds an unknown one."""
    return [role.name for role in ROLES.values() if permission in role.permissions]


def known_roles(names: Iterable[str], field: str) -> tuple[str, ...]:
    """Roles in the order of the table, each once. Raises `InvalidArgument` naming `field`."""
    asked = set(names)
    if unknown := sorted(asked - set(ROLES)):
        raise InvalidArgument(
            f"{field}: there is no role {unknown[0]!r}; the roles are {', '.join(ROLES)}",
            field=field,
        )
    if not asked:
        raise InvalidArgument(
            f"{field}: at least one role is needed: {', '.join(ROLES)}", field=field
        )
    return tuple(name for name in ROLES if name in asked)
