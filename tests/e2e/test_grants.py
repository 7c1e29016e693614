"""A key whose roles are limited to some PVs: every act that names PVs, found by reflection."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest

from drey.access.v1 import access_pb2, access_service_pb2, access_service_pb2_grpc
from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as catalog
from drey.common.v1 import annotations_pb2, selector_pb2, state_pb2
from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from drey_core.permissions import LIMITABLE, PV_PERMISSIONS, ROLES
from drey_runtime.status import reason_of
from tests.e2e.conftest import Running

COVERED = "GRANT:MINE:*"


class Acts:
    """Each act that names PVs, with such as the limited key covers, or with others."""

    def __init__(
        self, running: Running, folder: Path, key: str, mine: list[str], others: list[str]
    ) -> None:
        self._running, self._folder = running, folder
        self._admin: dict[str, Any] = running.call()
        self._limited: dict[str, Any] = {
            "metadata": (("authorization", f"Bearer {key}"),),
            "timeout": 200,
        }
        self._catalog = running.catalog
        self._restores = restore_service_pb2_grpc.RestoreServiceStub(running.channel)
        self._machine = {True: mine, False: others}
        self._number = 0

    def _new_name(self, covered: bool) -> str:
        self._number += 1
        return f"GRANT:{'MINE' if covered else 'OTHER'}:{self._number}"

    def _new_pv(self, covered: bool) -> catalog_pb2.Pv:
        return catalog_pb2.Pv(setpoint={"address": self._new_name(covered)})

    def _made(self, covered: bool) -> catalog_pb2.Pv:
        request = catalog.CreatePvRequest(pv=self._new_pv(covered))
        return self._catalog.CreatePv(request, **self._admin).pv

    def _deleted(self, covered: bool) -> catalog_pb2.Pv:
        pv = self._made(covered)
        self._catalog.DeletePv(catalog.DeletePvRequest(id=pv.id), **self._admin)
        return pv

    def _disturbed_plan(self, covered: bool, options: dict[str, Any]) -> restore_pb2.Plan:
        """A plan that writes: its PV has moved since its snapshot."""
        snapshot = self._running.take("for grants")
        self._number += 1
        name = self._machine[covered][0]
        values = self._folder / "values.json"
        values.write_text(json.dumps({name: self._number / 8}))
        self._running.do(self._running.machine.run("write", "--values-from", str(values)))
        spec = restore_pb2.PlanSpec(
            state=state_pb2.StateRef(snapshot_id=snapshot.id),
            selector=selector_pb2.Selector(names=[name]),
        )
        request = restore_service_pb2.CreatePlanRequest(spec=spec)
        plan = self._restores.CreatePlan(request, **options).plan
        assert plan.writes == 1
        return plan

    def _execute(self, covered: bool, options: dict[str, Any]) -> restore_pb2.Restore:
        plan = self._disturbed_plan(covered, self._admin)
        request = restore_service_pb2.ExecutePlanRequest(
            plan_id=plan.id, digest=plan.digest, request_id=str(uuid4())
        )
        return self._restores.ExecutePlan(request, **options).restore

    def _ended(self, restore: restore_pb2.Restore) -> restore_pb2.Restore:
        watch = restore_service_pb2.WatchRestoreRequest(id=restore.id)
        *_, last = self._restores.WatchRestore(watch, **self._admin)
        return last.restore

    # --- the acts ---

    def CreatePv(self, covered: bool) -> None:
        request = catalog.CreatePvRequest(pv=self._new_pv(covered))
        self._catalog.CreatePv(request, **self._limited)

    def BatchCreatePvs(self, covered: bool) -> None:
        pvs = [self._new_pv(True), self._new_pv(covered)]
        self._catalog.BatchCreatePvs(catalog.BatchCreatePvsRequest(pvs=pvs), **self._limited)

    def ImportPvs(self, covered: bool) -> None:
        text = f"setpoint\n{self._new_name(True)}\n{self._new_name(covered)}\n"
        requests = [
            catalog.ImportPvsRequest(options={"format": "FILE_FORMAT_CSV"}),
            catalog.ImportPvsRequest(data=text.encode()),
        ]
        list(self._catalog.ImportPvs(iter(requests), **self._limited))

    def UpdatePv(self, covered: bool) -> None:
        pv = self._made(covered)
        request = catalog.UpdatePvRequest(
            pv={"id": pv.id, "description": "x"}, update_mask={"paths": ["description"]}
        )
        self._catalog.UpdatePv(request, **self._limited)

    def BatchUpdatePvs(self, covered: bool) -> None:
        updates = [
            {
                "pv": {"id": self._made(which).id, "device": "D"},
                "update_mask": {"paths": ["device"]},
            }
            for which in (True, covered)
        ]
        request = catalog.BatchUpdatePvsRequest(updates=updates)
        self._catalog.BatchUpdatePvs(request, **self._limited)

    def DeletePv(self, covered: bool) -> None:
        request = catalog.DeletePvRequest(id=self._made(covered).id)
        self._catalog.DeletePv(request, **self._limited)

    def PurgePvs(self, covered: bool) -> None:
        names = [self._made(which).name for which in (True, covered)]
        request = catalog.PurgePvsRequest(selector={"names": names})
        self._catalog.PurgePvs(request, **self._limited)

    def UndeletePv(self, covered: bool) -> None:
        request = catalog.UndeletePvRequest(id=self._deleted(covered).id)
        self._catalog.UndeletePv(request, **self._limited)

    def BatchUndeletePvs(self, covered: bool) -> None:
        names = [self._deleted(which).name for which in (True, covered)]
        request = catalog.BatchUndeletePvsRequest(selector={"names": names})
        self._catalog.BatchUndeletePvs(request, **self._limited)

    def TagPvs(self, covered: bool) -> None:
        group = catalog.CreateTagGroupRequest(tag_group={"name": f"G{uuid4().hex[:8]}"})
        made = self._catalog.CreateTagGroup(group, **self._admin).tag_group
        tag = catalog.CreateTagRequest(tag_group_id=made.id, name="t")
        self._catalog.CreateTag(tag, **self._admin)
        request = catalog.TagPvsRequest(
            selector={"names": [self._made(covered).name]}, add=[{"group": made.name, "tag": "t"}]
        )
        try:
            self._catalog.TagPvs(request, **self._limited)
        finally:
            gone = catalog.DeleteTagGroupRequest(id=made.id, force=True)
            self._catalog.DeleteTagGroup(gone, **self._admin)

    def TakeSnapshot(self, covered: bool) -> None:
        names = [self._machine[which][0] for which in (True, covered)]
        for source in (snapshot_pb2.SNAPSHOT_SOURCE_IMAGE, snapshot_pb2.SNAPSHOT_SOURCE_READ):
            spec = snapshot_pb2.SnapshotSpec(
                selector={"names": names}, source=source, gates={"any_missing": {}}
            )
            request = snapshot_service_pb2.TakeSnapshotRequest(spec=spec)
            self._running.snapshots.TakeSnapshot(request, **self._limited)

    def CreatePlan(self, covered: bool) -> None:
        self._disturbed_plan(covered, self._limited)

    def ExecutePlan(self, covered: bool) -> None:
        self._ended(self._execute(covered, self._limited))

    def ApprovePlan(self, covered: bool) -> None:
        plan = self._disturbed_plan(covered, self._admin)
        self._but_for_its_state(
            self._restores.ApprovePlan,
            restore_service_pb2.ApprovePlanRequest(id=plan.id, digest=plan.digest),
        )

    def RejectPlan(self, covered: bool) -> None:
        plan = self._disturbed_plan(covered, self._admin)
        self._but_for_its_state(
            self._restores.RejectPlan,
            restore_service_pb2.RejectPlanRequest(id=plan.id, reason="a test"),
        )

    def AbortRestore(self, covered: bool) -> None:
        self._on_ended(covered, restore_service_pb2.AbortRestoreRequest)

    def PauseRestore(self, covered: bool) -> None:
        self._on_ended(covered, restore_service_pb2.PauseRestoreRequest)

    def ResumeRestore(self, covered: bool) -> None:
        self._on_ended(covered, restore_service_pb2.ResumeRestoreRequest)

    def _on_ended(self, covered: bool, request: Callable[..., Any]) -> None:
        restore = self._ended(self._execute(covered, self._admin))
        name = request.__name__.removesuffix("Request")
        self._but_for_its_state(getattr(self._restores, name), request(id=restore.id))

    def _but_for_its_state(self, method: Callable[..., Any], request: Any) -> None:
        """With a grant it is refused for another reason: no approval is asked for, it has ended."""
        try:
            method(request, **self._limited)
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.FAILED_PRECONDITION:
                raise


@pytest.fixture
def acts(running: Running, tmp_path: Path) -> Iterator[Acts]:
    listed = running.catalog.ListPvs(
        catalog.ListPvsRequest(selector={"globs": ["QUAD:*"]}, page_size=10), **running.call()
    )
    names = [pv.name for pv in listed.pvs if pv.setpoint.address]
    mine, others = names[:2], names[2:4]
    keys = access_service_pb2_grpc.AccessServiceStub(running.channel)
    grants = [
        access_pb2.Grant(role=role, selector={"names": mine, "globs": [COVERED]})
        for role in LIMITABLE
    ]
    request = access_service_pb2.CreateKeyRequest(name=f"limited {uuid4().hex}", grants=grants)
    made = keys.CreateKey(request, **running.call())
    yield Acts(running, tmp_path, made.secret, mine, others)
    keys.RevokeKey(access_service_pb2.RevokeKeyRequest(id=made.key.id), **running.call())
    purge = catalog.PurgePvsRequest(selector={"globs": ["GRANT:*"]})
    running.catalog.PurgePvs(purge, **running.call())


def _names_pvs(running: Running) -> list[str]:
    """Names of the RPCs that are built and are held against grants."""
    from tests.e2e.test_every_rpc import _methods_of

    return [
        method.name
        for method in _methods_of(running.channel, running.metadata())
        if method.GetOptions().Extensions[annotations_pb2.permission] in PV_PERMISSIONS
        and not method.GetOptions().Extensions[annotations_pb2.not_built]
    ]


def test_each_act_is_held_against_the_grant(running: Running, acts: Acts) -> None:
    names = _names_pvs(running)
    assert len(names) >= 13
    for name in names:
        act = getattr(acts, name)
        act(True)
        with pytest.raises(grpc.RpcError) as caught:
            act(False)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED, (name, caught.value)
        reason, metadata = reason_of(caught.value)
        assert reason == "PERMISSION_DENIED" and metadata["pv"], name
        assert "some PVs only" in str(caught.value.details()), name


def test_what_names_no_pvs_takes_a_role_without_a_limit(running: Running, acts: Acts) -> None:
    limited = acts._limited
    group = catalog.CreateTagGroupRequest(tag_group={"name": "GRANT"})
    with pytest.raises(grpc.RpcError) as caught:
        running.catalog.CreateTagGroup(group, **limited)
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED
    tag = catalog.TagPvsRequest(
        selector={"names": [acts._machine[True][0]]}, add=[{"group": "GRANT", "tag": "new"}]
    )
    with pytest.raises(grpc.RpcError) as caught:
        running.catalog.TagPvs(tag, **limited)
    assert caught.value.code() in (
        grpc.StatusCode.PERMISSION_DENIED,
        grpc.StatusCode.NOT_FOUND,
    )


def test_an_address_is_covered_by_itself(running: Running, acts: Acts) -> None:
    """Else a PV of a covered name would lead restores to any device."""
    foreign = acts._machine[False][0]
    covered = acts._made(True)
    for pv, mask in (
        (catalog_pb2.Pv(name="GRANT:MINE:TRAP", setpoint={"address": "GUN:VOLTAGE"}), None),
        (catalog_pb2.Pv(id=covered.id, setpoint={"address": foreign + ".VAL"}), "setpoint.address"),
        (catalog_pb2.Pv(id=covered.id, readback={"address": "GUN:RB"}), "readback.address"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            if mask is None:
                request = catalog.CreatePvRequest(pv=pv)
                running.catalog.CreatePv(request, **acts._limited)
            else:
                update = catalog.UpdatePvRequest(pv=pv, update_mask={"paths": [mask]})
                running.catalog.UpdatePv(update, **acts._limited)
        assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED, pv


def test_who_am_i_tells_the_limit(running: Running, acts: Acts) -> None:
    keys = access_service_pb2_grpc.AccessServiceStub(running.channel)
    answer = keys.WhoAmI(access_service_pb2.WhoAmIRequest(), **acts._limited)
    assert set(answer.roles) == set(LIMITABLE)
    assert all(list(grant.selector.globs) == [COVERED] for grant in answer.grants)
    assert "catalog.tags.create" not in answer.permissions
    assert "restore.plans.execute" in answer.permissions
    assert "restore.plans.list" in answer.permissions


@pytest.mark.parametrize("role", sorted(set(ROLES) - set(LIMITABLE)))
def test_other_roles_take_no_limit(running: Running, role: str) -> None:
    keys = access_service_pb2_grpc.AccessServiceStub(running.channel)
    grants = [access_pb2.Grant(role=role, selector={"globs": ["X"]})]
    with pytest.raises(grpc.RpcError) as caught:
        keys.CreateKey(
            access_service_pb2.CreateKeyRequest(name="no", grants=grants), **running.call()
        )
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
