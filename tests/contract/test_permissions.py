"""The table of roles and the contracts speak of the same permissions."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator

import pytest
from google.protobuf.descriptor import MethodDescriptor

import drey
from drey.common.v1 import annotations_pb2
from drey_core.errors import InvalidArgument, PermissionDenied
from drey_core.permissions import IN_METHODS, ROLES, holders_of, known_roles, permissions_of
from drey_core.principal import Principal
from drey_runtime.interceptor import REFLECTION_PERMISSION, permission_of


def _methods() -> Iterator[MethodDescriptor]:
    for module in pkgutil.walk_packages(drey.__path__, "drey."):
        if module.name.endswith("_pb2"):
            file = importlib.import_module(module.name).DESCRIPTOR
            for service in file.services_by_name.values():
                yield from service.methods


def test_each_permission_is_demanded_and_each_demanded_one_is_held() -> None:
    methods = list(_methods())
    assert len(methods) > 70
    demanded = {str(m.GetOptions().Extensions[annotations_pb2.permission]) for m in methods}
    held = set().union(*(role.permissions for role in ROLES.values()))
    assert held == demanded | IN_METHODS | {REFLECTION_PERMISSION}
    assert not IN_METHODS & demanded


def test_what_a_line_of_roles_ran_together_is_apart() -> None:
    """An operator takes snapshots and neither edits the catalog, restores, approves nor keeps."""
    for acts, role in {
        "snapshot.snapshots.take": "operator",
        "catalog.pvs.update": "editor",
        "catalog.pvs.delete": "editor",
        "catalog.pvs.import": "editor",
        "restore.plans.execute": "restorer",
        "restore.plans.approve": "approver",
        "snapshot.golden.set": "keeper",
        "snapshot.snapshots.delete_any": "keeper",
    }.items():
        assert holders_of(acts) == [role, "admin"], acts
    for acts in ("access.keys.create", "audit.events.list", "control.shards.release"):
        assert holders_of(acts) == ["admin"], acts
    viewer = ROLES["viewer"].permissions
    assert all(viewer <= role.permissions for role in ROLES.values())
    assert ROLES["admin"].permissions == set().union(*(r.permissions for r in ROLES.values()))


def test_a_viewer_changes_nothing() -> None:
    own = {"drey.monitor.v1.MonitorService.ModifyWatch"}  # changes the stream that the caller holds
    for method in _methods():
        permission = method.GetOptions().Extensions[annotations_pb2.permission]
        if permission in ROLES["viewer"].permissions and method.full_name not in own:
            assert method.GetOptions().idempotency_level == 1, method.full_name


def test_a_method_without_a_permission_is_nobodys() -> None:
    assert permission_of("/no.such.Service/Method") == ""
    with pytest.raises(PermissionDenied, match="that nobody has"):
        Principal("root", ("admin",)).require_permission("", "/no.such.Service/Method")


def test_roles_add_up_and_unknown_ones_give_nothing() -> None:
    both = permissions_of(("operator", "editor"))
    assert both == ROLES["operator"].permissions | ROLES["editor"].permissions
    assert permissions_of(("gone",)) == permissions_of(()) == frozenset()
    assert known_roles(["editor", "viewer", "editor"], "grants") == ("viewer", "editor")
    for wrong in (["god"], []):
        with pytest.raises(InvalidArgument, match="viewer, operator, editor"):
            known_roles(wrong, "grants")


def test_a_refusal_names_the_permission_and_who_has_it() -> None:
    ann = Principal("ann", ("viewer", "operator"))
    with pytest.raises(PermissionDenied) as refused:
        ann.require_permission("catalog.pvs.update", "UpdatePv")
    assert refused.value.message == (
        "UpdatePv needs the role editor or admin; ann is viewer and operator"
    )
    assert refused.value.metadata == {
        "permission": "catalog.pvs.update",
        "roles": "viewer,operator",
    }
