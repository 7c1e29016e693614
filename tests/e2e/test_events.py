"""Each acting RPC leaves an event: found by reflection, so that a new one is not forgotten."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import grpc
import pytest

from drey.access.v1 import access_service_pb2, access_service_pb2_grpc
from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as catalog
from drey.common.v1 import annotations_pb2, state_pb2
from drey.event.v1 import event_pb2, event_service_pb2, event_service_pb2_grpc
from drey.job.v1 import job_service_pb2, job_service_pb2_grpc
from drey.policy.v1 import policy_service_pb2, policy_service_pb2_grpc
from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey.snapshot.v1 import snapshot_service_pb2
from drey_runtime.interceptor import method_acts
from tests.e2e.conftest import APPROVED, Running
from tests.go import ROOT

WAIT_S = 120.0
LEAVES_NONE = {
    # it changes what one stream is sent, and nothing that anybody else sees
    "drey.monitor.v1.MonitorService.ModifyWatch",
    # the summary of the system tells of it as a finding, while it holds
    "drey.system.v1.SystemService.ForceBreaker",
}


class EventLog:
    """Everything that one WatchEvents is sent, read beside the test."""

    def __init__(self, running: Running) -> None:
        stub = event_service_pb2_grpc.EventServiceStub(running.channel)
        self._call = stub.WatchEvents(
            event_service_pb2.WatchEventsRequest(), metadata=running.metadata()
        )
        self.begun = threading.Event()
        self.events: list[event_pb2.Event] = []
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self.begun.wait(WAIT_S)

    def _read(self) -> None:
        try:
            for message in self._call:
                self.begun.set()
                with self._changed:
                    self.events += message.events.events
                    self._changed.notify_all()
        except grpc.RpcError as error:
            assert error.code() is grpc.StatusCode.CANCELLED

    def wait_for(self, event: tuple[str, ...], since: int) -> bool:
        """Whether (resource, kind, id) comes, or has come since so many events; `*` is any."""
        with self._changed:
            return self._changed.wait_for(
                lambda: any(_matches(event, each) for each in self.events[since:]), WAIT_S
            )

    def close(self) -> None:
        self._call.cancel()
        self._thread.join()


def _matches(wanted: tuple[str, ...], event: event_pb2.Event) -> bool:
    resource, kind, id = wanted
    found = (
        event_pb2.EventResource.Name(event.resource).removeprefix("EVENT_RESOURCE_"),
        event_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_"),
    )
    return resource == found[0] and kind in ("*", found[1]) and id in ("*", event.id)


@pytest.fixture
def event_log(running: Running) -> Iterator[EventLog]:
    log = EventLog(running)
    yield log
    log.close()


class Acts:
    """One act for each acting RPC, and the events that it has to leave; in their order."""

    def __init__(self, running: Running) -> None:
        self._running = running
        self._catalog = running.catalog
        self._snapshots = running.snapshots
        self._policies = policy_service_pb2_grpc.PolicyServiceStub(running.channel)
        self._restores = restore_service_pb2_grpc.RestoreServiceStub(running.channel)
        self._access = access_service_pb2_grpc.AccessServiceStub(running.channel)
        self._jobs = job_service_pb2_grpc.JobServiceStub(running.channel)
        self._options: dict[str, Any] = running.call()
        self._mark = uuid4().hex[:8]
        self.pv: Any = None
        self.group: Any = None
        self.tag: Any = None
        self.snapshot: Any = None
        self.plan: Any = None
        self.held: Any = None

    def _new_pv(self, name: str) -> catalog_pb2.Pv:
        return catalog_pb2.Pv(setpoint={"address": f"EVENT:{self._mark}:{name}"})

    def _chosen(self, *names: str) -> Any:
        return {"names": [f"EVENT:{self._mark}:{name}" for name in names]}

    def purge_pvs(self) -> None:
        """Leave the catalog as the next test expects it."""
        globs = [f"EVENT:{self._mark}:*", f"{APPROVED}{self._mark}"]
        request = catalog.PurgePvsRequest(selector={"globs": globs})
        self._catalog.PurgePvs(request, **self._options)

    def CreatePv(self) -> list[tuple[str, ...]]:
        request = catalog.CreatePvRequest(pv=self._new_pv("A"))
        self.pv = self._catalog.CreatePv(request, **self._options).pv
        return [("PV", "CREATED", self.pv.id)]

    def UpdatePv(self) -> list[tuple[str, ...]]:
        request = catalog.UpdatePvRequest(
            pv={"id": self.pv.id, "description": "x"}, update_mask={"paths": ["description"]}
        )
        self._catalog.UpdatePv(request, **self._options)
        return [("PV", "UPDATED", self.pv.id)]

    def DeletePv(self) -> list[tuple[str, ...]]:
        self._catalog.DeletePv(catalog.DeletePvRequest(id=self.pv.id), **self._options)
        return [("PV", "DELETED", self.pv.id)]

    def UndeletePv(self) -> list[tuple[str, ...]]:
        self._catalog.UndeletePv(catalog.UndeletePvRequest(id=self.pv.id), **self._options)
        return [("PV", "UNDELETED", self.pv.id)]

    def BatchCreatePvs(self) -> list[tuple[str, ...]]:
        request = catalog.BatchCreatePvsRequest(pvs=[self._new_pv("B"), self._new_pv("C")])
        self._catalog.BatchCreatePvs(request, **self._options)
        return [("PV", "CREATED", "")]

    def BatchUpdatePvs(self) -> list[tuple[str, ...]]:
        listed = self._catalog.ListPvs(
            catalog.ListPvsRequest(selector=self._chosen("B", "C")), **self._options
        )
        updates = [
            {"pv": {"id": pv.id, "device": "D"}, "update_mask": {"paths": ["device"]}}
            for pv in listed.pvs
        ]
        request = catalog.BatchUpdatePvsRequest(updates=updates)
        self._catalog.BatchUpdatePvs(request, **self._options)
        return [("PV", "UPDATED", "")]

    def PurgePvs(self) -> list[tuple[str, ...]]:
        request = catalog.PurgePvsRequest(selector=self._chosen("B", "C"))
        self._catalog.PurgePvs(request, **self._options)
        return [("PV", "DELETED", "")]

    def BatchUndeletePvs(self) -> list[tuple[str, ...]]:
        request = catalog.BatchUndeletePvsRequest(selector=self._chosen("B", "C"))
        self._catalog.BatchUndeletePvs(request, **self._options)
        return [("PV", "UNDELETED", "")]

    def ImportPvs(self) -> list[tuple[str, ...]]:
        text = f"setpoint\nEVENT:{self._mark}:D\nEVENT:{self._mark}:E\n"
        requests = [
            catalog.ImportPvsRequest(options={"format": "FILE_FORMAT_CSV"}),
            catalog.ImportPvsRequest(data=text.encode()),
        ]
        *_, last = self._catalog.ImportPvs(iter(requests), **self._options)
        assert last.summary.added == 2, last
        return [("PV", "CREATED", ""), ("JOB", "CREATED", "*")]

    def CreateTagGroup(self) -> list[tuple[str, ...]]:
        request = catalog.CreateTagGroupRequest(tag_group={"name": f"G{self._mark}"})
        self.group = self._catalog.CreateTagGroup(request, **self._options).tag_group
        return [("TAG_GROUP", "CREATED", self.group.id)]

    def CreateTag(self) -> list[tuple[str, ...]]:
        request = catalog.CreateTagRequest(tag_group_id=self.group.id, name="t")
        self.tag = self._catalog.CreateTag(request, **self._options).tag
        return [("TAG", "CREATED", self.tag.id)]

    def TagPvs(self) -> list[tuple[str, ...]]:
        request = catalog.TagPvsRequest(
            selector=self._chosen("A"), add=[{"group": self.group.name, "tag": "t"}]
        )
        self._catalog.TagPvs(request, **self._options)
        return [("PV", "UPDATED", self.pv.id)]

    def UpdateTagGroup(self) -> list[tuple[str, ...]]:
        request = catalog.UpdateTagGroupRequest(
            tag_group={"id": self.group.id, "description": "x"},
            update_mask={"paths": ["description"]},
        )
        self._catalog.UpdateTagGroup(request, **self._options)
        return [("TAG_GROUP", "UPDATED", self.group.id)]

    def UpdateTag(self) -> list[tuple[str, ...]]:
        request = catalog.UpdateTagRequest(
            tag={"id": self.tag.id, "name": "u"}, update_mask={"paths": ["name"]}
        )
        self._catalog.UpdateTag(request, **self._options)
        return [("TAG", "UPDATED", self.tag.id)]

    def MergeTags(self) -> list[tuple[str, ...]]:
        request = catalog.CreateTagRequest(tag_group_id=self.group.id, name="into")
        into = self._catalog.CreateTag(request, **self._options).tag
        merge = catalog.MergeTagsRequest(from_id=self.tag.id, into_id=into.id)
        self._catalog.MergeTags(merge, **self._options)
        gone, self.tag = self.tag, into
        return [("TAG", "DELETED", gone.id), ("PV", "UPDATED", self.pv.id)]

    def DeleteTag(self) -> list[tuple[str, ...]]:
        request = catalog.DeleteTagRequest(id=self.tag.id, force=True)
        self._catalog.DeleteTag(request, **self._options)
        return [("TAG", "DELETED", self.tag.id), ("PV", "UPDATED", self.pv.id)]

    def UndeleteTag(self) -> list[tuple[str, ...]]:
        self._catalog.UndeleteTag(catalog.UndeleteTagRequest(id=self.tag.id), **self._options)
        return [("TAG", "UNDELETED", self.tag.id), ("PV", "UPDATED", self.pv.id)]

    def DeleteTagGroup(self) -> list[tuple[str, ...]]:
        request = catalog.DeleteTagGroupRequest(id=self.group.id, force=True)
        self._catalog.DeleteTagGroup(request, **self._options)
        return [("TAG_GROUP", "DELETED", self.group.id), ("PV", "UPDATED", self.pv.id)]

    def UndeleteTagGroup(self) -> list[tuple[str, ...]]:
        request = catalog.UndeleteTagGroupRequest(id=self.group.id)
        self._catalog.UndeleteTagGroup(request, **self._options)
        return [("TAG_GROUP", "UNDELETED", self.group.id), ("TAG", "UNDELETED", self.tag.id)]

    def CreatePolicy(self) -> list[tuple[str, ...]]:
        request = policy_service_pb2.CreatePolicyRequest(
            policy={"device": f"D{self._mark}", "policy": {"stage": 1}}
        )
        self._policy = self._policies.CreatePolicy(request, **self._options).policy
        return [("POLICY", "CREATED", self._policy.id)]

    def UpdatePolicy(self) -> list[tuple[str, ...]]:
        request = policy_service_pb2.UpdatePolicyRequest(
            policy={"id": self._policy.id, "comment": "x"}, update_mask={"paths": ["comment"]}
        )
        self._policies.UpdatePolicy(request, **self._options)
        return [("POLICY", "UPDATED", self._policy.id)]

    def DeletePolicy(self) -> list[tuple[str, ...]]:
        request = policy_service_pb2.DeletePolicyRequest(id=self._policy.id)
        self._policies.DeletePolicy(request, **self._options)
        return [("POLICY", "DELETED", self._policy.id)]

    def CreateKey(self) -> list[tuple[str, ...]]:
        request = access_service_pb2.CreateKeyRequest(
            name=f"events {self._mark}", grants=[{"role": "viewer"}]
        )
        self._key = self._access.CreateKey(request, **self._options).key
        return [("KEY", "CREATED", self._key.id)]

    def RevokeKey(self) -> list[tuple[str, ...]]:
        request = access_service_pb2.RevokeKeyRequest(id=self._key.id)
        self._access.RevokeKey(request, **self._options)
        return [("KEY", "DELETED", self._key.id)]

    def TakeSnapshot(self) -> list[tuple[str, ...]]:
        self.snapshot = self._running.take("of events")
        return [("SNAPSHOT", "CREATED", self.snapshot.id), ("JOB", "CREATED", "*")]

    def UpdateSnapshot(self) -> list[tuple[str, ...]]:
        request = snapshot_service_pb2.UpdateSnapshotRequest(
            snapshot={"id": self.snapshot.id, "title": "x"}, update_mask={"paths": ["title"]}
        )
        self._snapshots.UpdateSnapshot(request, **self._options)
        return [("SNAPSHOT", "UPDATED", self.snapshot.id)]

    def SetGolden(self) -> list[tuple[str, ...]]:
        request = snapshot_service_pb2.SetGoldenRequest(
            snapshot_id=self.snapshot.id, label=self._mark, reason="a test"
        )
        self._snapshots.SetGolden(request, **self._options)
        return [("GOLDEN", "CREATED", self.snapshot.id)]

    def ClearGolden(self) -> list[tuple[str, ...]]:
        request = snapshot_service_pb2.ClearGoldenRequest(
            snapshot_id=self.snapshot.id, label=self._mark, reason="a test"
        )
        self._snapshots.ClearGolden(request, **self._options)
        return [("GOLDEN", "DELETED", self.snapshot.id)]

    def CreatePlan(self) -> list[tuple[str, ...]]:
        self._running.do(self._running.machine.run("disturb", "--count", "5", "--seed", "11"))
        spec = restore_pb2.PlanSpec(state=state_pb2.StateRef(snapshot_id=self.snapshot.id))
        request = restore_service_pb2.CreatePlanRequest(spec=spec)

        def planned() -> bool:
            self.plan = self._restores.CreatePlan(request, **self._options).plan
            return self.plan.writes > 0

        self._running.pump(planned)
        return [("PLAN", "CREATED", self.plan.id)]

    def ExecutePlan(self) -> list[tuple[str, ...]]:
        restore = self._execute()
        watch = restore_service_pb2.WatchRestoreRequest(id=restore.id)
        *_, _last = self._restores.WatchRestore(watch, **self._options)
        return [
            ("PLAN", "STATE_CHANGED", self.plan.id),
            ("RESTORE", "CREATED", restore.id),
            ("RESTORE", "STATE_CHANGED", restore.id),
            ("JOB", "CREATED", restore.job_id),
            ("JOB", "STATE_CHANGED", restore.job_id),
        ]

    def _execute(self) -> restore_pb2.Restore:
        request = restore_service_pb2.ExecutePlanRequest(
            plan_id=self.plan.id, digest=self.plan.digest, request_id=str(uuid4())
        )
        return self._restores.ExecutePlan(request, **self._options).restore

    def PauseRestore(self) -> list[tuple[str, ...]]:
        for _ in range(20):
            self.CreatePlan()
            self.held = self._execute()
            try:
                self._restores.PauseRestore(
                    restore_service_pb2.PauseRestoreRequest(id=self.held.id), **self._options
                )
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
                continue
            watch = restore_service_pb2.WatchRestoreRequest(id=self.held.id)
            for response in self._restores.WatchRestore(watch, **self._options):
                if response.restore.state == restore_pb2.RESTORE_STATE_PAUSED:
                    return [("RESTORE", "UPDATED", self.held.id)]
        raise AssertionError("each restore ended before it could be paused")

    def ResumeRestore(self) -> list[tuple[str, ...]]:
        self._restores.ResumeRestore(
            restore_service_pb2.ResumeRestoreRequest(id=self.held.id), **self._options
        )
        watch = restore_service_pb2.WatchRestoreRequest(id=self.held.id)
        *_, _last = self._restores.WatchRestore(watch, **self._options)
        return [("RESTORE", "UPDATED", self.held.id)]

    def AbortRestore(self) -> list[tuple[str, ...]]:
        restore = self._stopped(
            lambda restore: self._restores.AbortRestore(
                restore_service_pb2.AbortRestoreRequest(id=restore.id), **self._options
            )
        )
        return [("RESTORE", "UPDATED", restore.id), ("JOB", "UPDATED", restore.job_id)]

    def CancelJob(self) -> list[tuple[str, ...]]:
        restore = self._stopped(
            lambda restore: self._jobs.CancelJob(
                job_service_pb2.CancelJobRequest(id=restore.job_id), **self._options
            )
        )
        return [("JOB", "*", restore.job_id)]

    def _stopped(self, stop: Callable[[restore_pb2.Restore], object]) -> restore_pb2.Restore:
        """A restore that was stopped before it ended; tried until one is caught."""
        for _ in range(20):
            self.CreatePlan()
            restore = self._execute()
            try:
                stop(restore)
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.FAILED_PRECONDITION
            else:
                watch = restore_service_pb2.WatchRestoreRequest(id=restore.id)
                *_, _last = self._restores.WatchRestore(watch, **self._options)
                return restore
        raise AssertionError("each restore ended before it could be stopped")

    def ApprovePlan(self) -> list[tuple[str, ...]]:
        plan = self._plan_under_approval()
        approve = restore_service_pb2.ApprovePlanRequest(id=plan.id, digest=plan.digest)
        self._restores.ApprovePlan(approve, **self._running.call("APPROVER"))
        return [("PLAN", "STATE_CHANGED", plan.id)]

    def RejectPlan(self) -> list[tuple[str, ...]]:
        plan = self._plan_under_approval()
        reject = restore_service_pb2.RejectPlanRequest(id=plan.id, reason="a test")
        self._restores.RejectPlan(reject, **self._running.call("APPROVER"))
        return [("PLAN", "STATE_CHANGED", plan.id)]

    def _plan_under_approval(self) -> restore_pb2.Plan:
        """Of a PV that the site keeps so, with the address of a magnet; its value is edited."""
        magnets = catalog.ListPvsRequest(selector={"globs": ["QUAD:*"]}, page_size=1)
        (magnet,) = self._catalog.ListPvs(magnets, **self._options).pvs
        name = f"{APPROVED}{self._mark}"
        pv = catalog_pb2.Pv(name=name, setpoint={"address": magnet.setpoint.address})
        # the second time it is there already, which is told of the item
        self._catalog.BatchCreatePvs(catalog.BatchCreatePvsRequest(pvs=[pv]), **self._options)
        spec = restore_pb2.PlanSpec(
            state=state_pb2.StateRef(snapshot_id=self._taken_with(name)),
            selector={"names": [name]},
            edits=[{"selector": {"names": [name]}, "linear": {"offset": 0.125}}],
        )
        made = restore_service_pb2.CreatePlanRequest(spec=spec)
        plan = self._restores.CreatePlan(made, **self._options).plan
        assert plan.writes == 1
        return plan

    def _taken_with(self, name: str) -> str:
        """Id of a snapshot in which the PV is connected."""
        while True:
            snapshot = self._running.take("with it")
            request = snapshot_service_pb2.ReadSnapshotRequest(
                id=snapshot.id, selector={"names": [name]}
            )
            for answer in self._snapshots.ReadSnapshot(request, **self._options):
                for row in answer.rows.rows:
                    if row.setpoint.WhichOneof("data"):
                        return snapshot.id

    def DeleteSnapshot(self) -> list[tuple[str, ...]]:
        request = snapshot_service_pb2.DeleteSnapshotRequest(id=self.snapshot.id)
        self._snapshots.DeleteSnapshot(request, **self._options)
        return [("SNAPSHOT", "DELETED", self.snapshot.id)]

    def UndeleteSnapshot(self) -> list[tuple[str, ...]]:
        request = snapshot_service_pb2.UndeleteSnapshotRequest(id=self.snapshot.id)
        self._snapshots.UndeleteSnapshot(request, **self._options)
        return [("SNAPSHOT", "UNDELETED", self.snapshot.id)]


def _acting(running: Running) -> list[str]:
    """Full names of the RPCs that may change something and are built."""
    from tests.e2e.test_every_rpc import _methods_of

    return [
        method.full_name
        for method in _methods_of(running.channel, running.metadata())
        if method_acts(method) and not method.GetOptions().Extensions[annotations_pb2.not_built]
    ]


def test_each_acting_rpc_leaves_an_event(
    running: Running, event_log: EventLog, request: pytest.FixtureRequest
) -> None:
    every = _acting(running)
    here = Acts(running)
    request.addfinalizer(here.purge_pvs)
    names = [name for name in vars(Acts) if name[0].isupper()]
    left_out = {full.rsplit(".", 1)[1] for full in every if full not in LEAVES_NONE} - set(names)
    assert not left_out, "add an act to Acts, or the RPC to LEAVES_NONE with the reason"
    for name in names:
        since = len(event_log.events)
        for event in getattr(here, name)():
            assert event_log.wait_for(event, since), f"{name} has to leave {event}"


def test_an_import_of_many_is_one_event(running: Running, event_log: EventLog) -> None:
    text = "setpoint\n" + "".join(f"EVENT:MANY:{n}\n" for n in range(3000))
    requests = [
        catalog.ImportPvsRequest(options={"format": "FILE_FORMAT_CSV"}),
        catalog.ImportPvsRequest(data=text.encode()),
    ]
    *_, last = running.catalog.ImportPvs(iter(requests), **running.call())
    assert last.summary.added == 3000
    assert event_log.wait_for(("PV", "CREATED", ""), 0)
    (event,) = [e for e in event_log.events if e.resource == event_pb2.EVENT_RESOURCE_PV]
    assert event.bulk.created == 3000
    request = catalog.PurgePvsRequest(selector={"globs": ["EVENT:MANY:*"]})
    running.catalog.PurgePvs(request, **running.call())


async def _lines(program: asyncio.subprocess.Process, last: str) -> list[str]:
    """What it prints up to a line that begins so."""
    assert program.stdout is not None
    lines: list[str] = []
    try:
        async with asyncio.timeout(WAIT_S):
            while not lines or not lines[-1].startswith(last):
                line = await program.stdout.readline()
                assert line, lines
                lines.append(line.decode().strip())
    except TimeoutError:
        raise AssertionError(f"no line begins with {last!r}: {lines}") from None
    return lines


def test_the_program_of_the_documents_misses_and_repeats_nothing(
    running: Running, tmp_path: Path
) -> None:
    """A tag group before, while the gateway is killed, and while the program does not run."""
    path = ROOT / "docs/how-to/programs/follow.py"
    command = [sys.executable, "-u", str(path), running.stack.server]
    command += [running.keys["ADMIN"], str(tmp_path / "token")]
    mark = f"F{uuid4().hex[:8]}"

    def act(name: str) -> None:
        request = catalog.CreateTagGroupRequest(tag_group={"name": f"{mark}{name}"})
        group = running.catalog.CreateTagGroup(request, **running.call()).tag_group
        gone = catalog.DeleteTagGroupRequest(id=group.id)
        running.catalog.DeleteTagGroup(gone, **running.call())

    def start() -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return running.do(asyncio.create_subprocess_exec(*command, stdout=pipe))

    def read(program: asyncio.subprocess.Process, last: str) -> list[str]:
        lines = running.do(_lines(program, last))
        return [line for line in lines if mark in line]

    def told(*names: str) -> list[str]:
        kinds = ("CREATED", "DELETED")
        return [f"TAG_GROUP {kind} {mark}{name}" for name in names for kind in kinds]

    program = start()
    try:
        read(program, "following")
        act("a")
        assert read(program, told("a")[-1]) == told("a")
        running.stack.supervisor.kill("gateway")
        running.pump(lambda: _serves(running))
        act("b")
        assert read(program, told("b")[-1]) == told("b")
    finally:
        program.kill()
        running.do(program.wait())
    act("c")
    program = start()
    try:
        lines = read(program, told("c")[-1])
        if lines[0] == told("b")[-1]:  # it was killed before it had kept that token
            del lines[0]
        assert lines == told("c")
    finally:
        program.kill()
        running.do(program.wait())


def _serves(running: Running) -> bool:
    try:
        running.catalog.ListTagGroups(catalog.ListTagGroupsRequest(), **running.call(timeout=5))
    except grpc.RpcError:
        return False
    return True
