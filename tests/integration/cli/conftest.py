"""A server of the public contracts in this process, with small fixed answers, and `drey` on it."""

import json
import threading
import time
from concurrent import futures
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.protobuf.message_factory import GetMessageClass
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from drey.access.v1 import access_pb2, access_service_pb2, access_service_pb2_grpc
from drey.audit.v1 import audit_pb2, audit_service_pb2, audit_service_pb2_grpc
from drey.catalog.v1 import catalog_pb2, catalog_service_pb2, catalog_service_pb2_grpc
from drey.common.v1 import errors_pb2, value_pb2
from drey.compare.v1 import compare_pb2, compare_service_pb2, compare_service_pb2_grpc
from drey.event.v1 import event_pb2, event_service_pb2, event_service_pb2_grpc
from drey.job.v1 import job_pb2, job_service_pb2, job_service_pb2_grpc
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc
from drey.policy.v1 import policy_pb2, policy_service_pb2, policy_service_pb2_grpc
from drey.restore.v1 import restore_pb2, restore_service_pb2, restore_service_pb2_grpc
from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2, snapshot_service_pb2_grpc
from drey.system.v1 import system_service_pb2, system_service_pb2_grpc
from drey_cli.main import run_command
from drey_client.plan_digest import plan_digest

KEY = "drey-test-key"
OLD = "01930000-0000-7000-8000-00000000aaaa"
NEW = "01940000-0000-7000-8000-00000000bbbb"
DEAD = "01920000-0000-7000-8000-00000000cccc"
PV_ID = "01930000-0000-7000-8000-000000000001"
PLAN = "01950000-0000-7000-8000-000000000001"
RESTORE = "01950000-0000-7000-8000-000000000002"
JOB = "01950000-0000-7000-8000-000000000003"


def refuse(context, code, reason, message, *, field="", **metadata):
    """End the call as the services do: status, ErrorInfo, BadRequest."""
    details = []
    info = error_details_pb2.ErrorInfo(
        reason=errors_pb2.ErrorReason.Name(reason), domain="drey", metadata=metadata
    )
    for message_ in (
        info,
        *(
            [
                error_details_pb2.BadRequest(
                    field_violations=[{"field": field, "description": message}]
                )
            ]
            if field
            else []
        ),
    ):
        packed = any_pb2.Any()
        packed.Pack(message_)
        details.append(packed)
    status = status_pb2.Status(code=code, message=message, details=details)
    context.abort_with_status(rpc_status.to_status(status))


def number(value, **more):
    return value_pb2.Value(
        float64_value=value,
        severity=value_pb2.ALARM_SEVERITY_NO_ALARM,
        status=value_pb2.ALARM_STATUS_NO_ALARM,
        state=value_pb2.CONNECTION_STATE_CONNECTED,
        freshness=value_pb2.FRESHNESS_FRESH,
        source_time_ns=1_700_000_000_123_456_789,
        **more,
    )


@dataclass
class State:
    """What the tests look at and turn."""

    calls: list[Any] = field(default_factory=list)
    restore_verified: bool = True
    restore_fails: int = 0
    no_own_plan: bool = False
    digest: str = ""
    restores_listed: bool = False
    replaced: bool = False
    watches: int = 0
    drop_first_watch: bool = False
    imported: bytes = b""
    take_as_job: bool = False
    hold_restore: threading.Event | None = None
    cut_off: bool = False
    answers_all: bool = False
    unanswered: str = ""
    """Method of restores that does what it is asked, and answers only who has gone."""

    def of(self, kind):
        return [call for call in self.calls if isinstance(call, kind)]


class Catalog(catalog_service_pb2_grpc.CatalogServiceServicer):
    def __init__(self, state):
        self.state = state
        self.pv = catalog_pb2.Pv(
            id=PV_ID,
            number=7,
            name="A:SET",
            setpoint={"address": "A:SET"},
            readback={"address": "A:RBV"},
            device="QUAD",
            etag="e1",
        )
        self.pv.tags.add(group="Region", tag="LI21")

    def ListPvs(self, request, context):
        self.state.calls.append(request)
        if not request.page_token:
            return catalog_service_pb2.ListPvsResponse(
                pvs=[self.pv], next_page_token="2", total_size=2
            )
        return catalog_service_pb2.ListPvsResponse(pvs=[catalog_pb2.Pv(name="B", id=PV_ID)])

    def GetPv(self, request, context):
        if request.name != "A:SET":
            refuse(
                context,
                code_pb2.NOT_FOUND,
                errors_pb2.ERROR_REASON_NOT_FOUND,
                f"no PV is named {request.name}",
                resource="pv",
                id=request.name,
            )
        return catalog_service_pb2.GetPvResponse(pv=self.pv)

    def UpdatePv(self, request, context):
        self.state.calls.append(request)
        return catalog_service_pb2.UpdatePvResponse(pv=request.pv)

    def GetEffectivePolicy(self, request, context):
        if not self.state.answers_all:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")
        return catalog_service_pb2.GetEffectivePolicyResponse(
            policy={"completion": "COMPLETION_PUT_CALLBACK", "stage": 3},
            sources=[
                {"policy_field": "completion", "built_in": {}},
                {"policy_field": "stage", "tag": {"group": "Kind", "tag": "weak"}},
                {"policy_field": "allowed", "built_in": {}},
            ],
            contradictions=["the tag A=B and the tag Kind=weak say different things of timeout"],
        )

    def ListDevices(self, request, context):
        self.state.calls.append(request)
        return catalog_service_pb2.ListDevicesResponse(
            devices=[catalog_pb2.Device(name="QUAD", pv_count=2)] if request.search != "no" else []
        )

    def PurgePvs(self, request, context):
        self.state.calls.append(request)
        return catalog_service_pb2.PurgePvsResponse(pvs=3)

    def BatchUndeletePvs(self, request, context):
        self.state.calls.append(request)
        return catalog_service_pb2.BatchUndeletePvsResponse(undeleted=2)

    def ListTagGroups(self, request, context):
        self.state.calls.append(request)
        dead = {"seconds": 5}
        groups: list[dict[str, Any]] = [
            {"id": "g1", "name": "Region", "tags": [{"id": "t1", "name": "LI21"}]},
            {"id": "g2", "name": "Old", "delete_time": dead, "tags": [{"id": "t9", "name": "X"}]},
        ]
        if request.include_deleted:
            groups[0]["tags"] += [
                {"id": "t2", "name": "LI22", "delete_time": {"seconds": 3}},
                {"id": "t3", "name": "LI22", "delete_time": {"seconds": 4}},
            ]
        else:
            groups = groups[:1]
        return catalog_service_pb2.ListTagGroupsResponse(tag_groups=groups)

    def UndeleteTag(self, request, context):
        self.state.calls.append(request)
        return catalog_service_pb2.UndeleteTagResponse(pvs_changed=4)

    def UndeleteTagGroup(self, request, context):
        self.state.calls.append(request)
        return catalog_service_pb2.UndeleteTagGroupResponse(pvs_changed=9)

    def CreateTag(self, request, context):
        self.state.calls.append(request)
        return catalog_service_pb2.CreateTagResponse()

    def TagPvs(self, request, context):
        self.state.calls.append(request)
        if not request.selector.names:
            refuse(
                context,
                code_pb2.INVALID_ARGUMENT,
                errors_pb2.ERROR_REASON_INVALID_FIELD,
                "too long",
                field="selector.globs[0]",
            )
        return catalog_service_pb2.TagPvsResponse(matched=1, changed=1)

    def ImportPvs(self, requests, context):
        options = next(requests).options
        self.state.calls.append(options)
        chunks = [request.data for request in requests]
        assert all(len(chunk) <= 512 * 1024 for chunk in chunks)
        self.state.imported = b"".join(chunks)
        rows = self.state.imported.count(b"\n") - 1
        refused = self.state.imported.count(b"BAD")
        if refused:
            yield catalog_service_pb2.ImportPvsResponse(
                rows={
                    "rows": [
                        catalog_pb2.ImportRow(
                            line=3,
                            name="BAD",
                            action=catalog_pb2.IMPORT_ACTION_REFUSED,
                            column="Setpoint",
                            error={
                                "reason": errors_pb2.ERROR_REASON_INVALID_FIELD,
                                "message": "blank",
                            },
                        )
                    ]
                }
            )
        yield catalog_service_pb2.ImportPvsResponse(
            summary=catalog_pb2.ImportSummary(
                rows=rows, added=rows - refused, refused=refused, applied=not refused
            )
        )

    def ExportPvs(self, request, context):
        yield catalog_service_pb2.ExportPvsResponse(data=b"Setpoint,Readback\n")
        yield catalog_service_pb2.ExportPvsResponse(data=b"A:SET,A:RBV\n")


class Monitor(monitor_service_pb2_grpc.MonitorServiceServicer):
    def __init__(self, state):
        self.state = state

    def GetValues(self, request, context):
        if request.selector.globs:
            return
        if "A:RB" in request.selector.names:
            yield monitor_service_pb2.GetValuesResponse(
                links=[{"asked": "A:RB", "number": 7, "name": "A:SET", "role": 2}]
            )
        unknown = [name for name in request.selector.names if name not in ("A:SET", "A:RB")]
        yield monitor_service_pb2.GetValuesResponse(
            not_found=unknown,
            metadata=[{"number": 7, "name": "A:SET", "setpoint": {"units": "A", "precision": 2}}]
            if request.with_metadata
            else [],
            rows=[value_pb2.PvRow(name="A:SET", number=7, setpoint=number(1.23456))],
        )

    def WatchPvs(self, request, context):
        self.state.calls.append(request)
        self.state.watches += 1
        if request.spec.selector.globs:
            yield monitor_service_pb2.WatchPvsResponse(baseline_begin={})
            yield monitor_service_pb2.WatchPvsResponse(baseline_end={"token": "t"})
            return
        response = monitor_service_pb2.WatchPvsResponse
        token = f"t{self.state.watches}"
        keeps = bool(request.token)
        yield response(baseline_begin={"pv_count": 1, "keeps_state": keeps})
        if not keeps:
            yield response(
                baseline={"rows": [value_pb2.PvRow(name="A:SET", number=7, setpoint=number(1.0))]}
            )
        yield response(baseline_end={"token": token})
        if self.state.drop_first_watch and self.state.watches == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gateway is going down")
        for at in range(3):
            yield response(
                diff={"rows": [value_pb2.PvRow(name="A:SET", number=7, setpoint=number(2.0 + at))]}
            )

    def WatchDrift(self, request, context):
        self.state.calls.append(request)
        self.state.watches += 1
        response = monitor_service_pb2.WatchDriftResponse
        keeps = bool(request.token)
        yield response(baseline_begin={"pv_count": 2, "keeps_state": keeps, "snapshot_id": NEW})
        if not keeps:
            yield response(baseline={"rows": [drift_row("A:SET", 7, 1.0)]})
        yield response(summary={"different": 1, "same": 1, "compared": 2})
        yield response(baseline_end={"token": f"t{self.state.watches}"})
        if self.state.drop_first_watch and self.state.watches == 1:
            context.abort(grpc.StatusCode.UNAVAILABLE, "gateway is going down")
        yield response(changed={"rows": [drift_row("B:SET", 8, 9.0)], "left": [7]})
        while context.is_active():
            yield response(checkpoint={"token": "t"})
            time.sleep(0.1)


def drift_row(name, pv, deviation):
    return monitor_service_pb2.DriftRow(
        live=value_pb2.PvRow(name=name, number=pv, setpoint=number(deviation)),
        stored=value_pb2.PvRow(name=name, number=pv, setpoint=number(0.0)),
        deviation=deviation,
        setpoint_class=3,
        readback_class=0,
        different=True,
    )


class Snapshots(snapshot_service_pb2_grpc.SnapshotServiceServicer):
    def __init__(self, state):
        self.state = state
        self.all = [
            snapshot_pb2.Snapshot(
                id=NEW, title="new", take_time={"nanos": 2_000}, pv_count=2, etag="s1"
            ),
            snapshot_pb2.Snapshot(
                id=OLD,
                title="old",
                take_time={"nanos": 1_000},
                pv_count=2,
                golden_marks=[{"label": "run"}],
            ),
        ]

    def TakeSnapshot(self, request, context):
        self.state.calls.append(request)
        if request.spec.selector.globs:
            refuse(
                context,
                code_pb2.FAILED_PRECONDITION,
                errors_pb2.ERROR_REASON_COVERAGE_TOO_SMALL,
                "3 PVs are missing, the first is X",
                missing="3",
                allowed="0",
            )
        if self.state.take_as_job:
            return snapshot_service_pb2.TakeSnapshotResponse(
                job=job_pb2.Job(id=JOB, state=job_pb2.JOB_STATE_QUEUED)
            )
        return snapshot_service_pb2.TakeSnapshotResponse(snapshot=self.all[0])

    def GetSnapshot(self, request, context):
        for snapshot in self.all:
            if snapshot.id == request.id:
                return snapshot_service_pb2.GetSnapshotResponse(snapshot=snapshot)
        return refuse(context, code_pb2.NOT_FOUND, errors_pb2.ERROR_REASON_NOT_FOUND, "none")

    def DeleteSnapshot(self, request, context):
        if request.id == NEW:
            refuse(
                context,
                code_pb2.FAILED_PRECONDITION,
                errors_pb2.ERROR_REASON_PROTECTED,
                "it is golden",
            )
        return snapshot_service_pb2.DeleteSnapshotResponse(snapshot={"title": "old"})

    def UndeleteSnapshot(self, request, context):
        self.state.calls.append(request)
        return snapshot_service_pb2.UndeleteSnapshotResponse(snapshot={"id": request.id})

    def ListSnapshots(self, request, context):
        if request.include_deleted:
            dead = snapshot_pb2.Snapshot(id=DEAD, title="dead", delete_time={"nanos": 5})
            return snapshot_service_pb2.ListSnapshotsResponse(snapshots=[*self.all, dead])
        return snapshot_service_pb2.ListSnapshotsResponse(snapshots=self.all)

    def SetGolden(self, request, context):
        self.state.calls.append(request)
        return snapshot_service_pb2.SetGoldenResponse(snapshot=self.all[0], moved_from_id=OLD)

    def ClearGolden(self, request, context):
        self.state.calls.append(request)
        return snapshot_service_pb2.ClearGoldenResponse(snapshot=self.all[1])

    def GetPvHistory(self, request, context):
        self.state.calls.append(request)
        for seconds, value in ((30, 2.0), (20, 1.0), (10, 3.0)):
            point = {"snapshot_id": NEW, "time_ns": seconds * 10**9}
            point["row"] = value_pb2.PvRow(name="A:SET", number=7, setpoint=number(value))
            yield snapshot_service_pb2.GetPvHistoryResponse(points=[point])

    def UpdateSnapshot(self, request, context):
        self.state.calls.append(request)
        return snapshot_service_pb2.UpdateSnapshotResponse(snapshot=request.snapshot)

    def ReadSnapshot(self, request, context):
        part = snapshot_service_pb2.ReadSnapshotResponse
        yield part(header=self.all[0])
        row = value_pb2.PvRow(name="WF", number=9)
        for first in (0, 2):
            row.setpoint.CopyFrom(
                value_pb2.Value(
                    float64_array={"elements": [first, first + 1]},
                    part={"first_element": first, "total_elements": 4},
                )
            )
            yield part(rows={"rows": [row]})
        yield part(rows={"rows": [value_pb2.PvRow(name="X", number=10, setpoint=number(1.0))]})


class Comparisons(compare_service_pb2_grpc.CompareServiceServicer):
    def __init__(self, state):
        self.state = state

    def Compare(self, request, context):
        self.state.calls.append(request)
        part = compare_service_pb2.CompareResponse
        header = compare_pb2.ComparisonHeader()
        row = compare_pb2.ComparisonRow(name="A:SET", number=7, reference_setpoint=number(1.0))
        for at, other in enumerate(request.spec.others):
            same = other == request.spec.reference
            header.others.add(state=other)
            header.summaries.add(pvs=2, pvs_same=2 if same else 1, pvs_different=0 if same else 1)
            channel = row.cells.add().setpoint
            channel.difference_class = compare_pb2.DIFFERENCE_CLASS_EQUAL
            if not same:
                channel.difference_class = compare_pb2.DIFFERENCE_CLASS_DIFFERENT
                channel.other.CopyFrom(number(2.0))
                channel.delta, channel.deviation = 1.0 + at, 10.0
                row.first_different = at
        header.total_rows = 1
        yield part(header=header)
        if row.HasField("first_different"):
            yield part(rows={"rows": [row]})
        yield part(end={})


class Policies(policy_service_pb2_grpc.PolicyServiceServicer):
    """Has one policy, of a device."""

    def __init__(self, state):
        self.state = state

    def ListPolicies(self, request, context):
        self.state.calls.append(request)
        found = policy_pb2.DefaultPolicy(
            id=OLD,
            device="PS:1",
            etag="a",
            pv_count=3,
            policy=catalog_pb2.RestorePolicy(
                completion=catalog_pb2.COMPLETION_DONE_CHANNEL, done_channel=".DMOV", stage=2
            ),
            comment="slow",
        )
        is_it = request.device in {"", found.device} and not request.HasField("tag")
        return policy_service_pb2.ListPoliciesResponse(policies=[found] if is_it else [])

    def CreatePolicy(self, request, context):
        self.state.calls.append(request)
        return policy_service_pb2.CreatePolicyResponse(policy=request.policy)

    def UpdatePolicy(self, request, context):
        self.state.calls.append(request)
        return policy_service_pb2.UpdatePolicyResponse(policy=request.policy)

    def DeletePolicy(self, request, context):
        self.state.calls.append(request)
        return policy_service_pb2.DeletePolicyResponse()


class Restores(restore_service_pb2_grpc.RestoreServiceServicer):
    def __init__(self, state):
        self.state = state
        self.plan = restore_pb2.Plan(
            id=PLAN,
            digest_recipe=3,
            state=restore_pb2.PLAN_STATE_READY,
            pvs=3,
            writes=2,
            skips=[
                {"reason": restore_pb2.SKIP_REASON_READ_ONLY, "pvs": 1},
                {"reason": restore_pb2.SKIP_REASON_POLICY, "pvs": 1},
            ],
            stages=[{"stage": 0, "writes": 2}],
            actor={"principal": "alice"},
        )
        self.items = [{"name": "A:SET", "number": 7, "current": number(1.0), "target": number(2.0)}]
        read = [restore_pb2.PlanItem(**item) for item in self.items]
        self.plan.digest = plan_digest(self.plan, read)
        state.digest = self.plan.digest
        self.newer = restore_pb2.Plan(id=NEW, actor={"principal": "bob"})

    def CreatePlan(self, request, context):
        self.state.calls.append(request)
        return restore_service_pb2.CreatePlanResponse(plan=self.plan)

    def GetPlan(self, request, context):
        return restore_service_pb2.GetPlanResponse(plan=self.plan)

    def ListPlans(self, request, context):
        plans = [self.newer] if self.state.no_own_plan else [self.newer, self.plan]
        found = [p for p in plans if request.principal in ("", p.actor.principal)]
        return restore_service_pb2.ListPlansResponse(plans=found)

    def ListRestores(self, request, context):
        restores: list[dict[str, Any]] = [
            {"id": NEW, "actor": {"principal": "bob"}},
            {"id": RESTORE, "actor": {"principal": "alice"}},
        ]
        if not self.state.restores_listed:
            restores = []
        found = [r for r in restores if request.principal in ("", r["actor"]["principal"])]
        return restore_service_pb2.ListRestoresResponse(restores=found)

    def GetRestore(self, request, context):
        writing = self.restore(restore_pb2.RESTORE_STATE_WRITING)
        return restore_service_pb2.GetRestoreResponse(restore=writing)

    def ReadPlan(self, request, context):
        if restore_pb2.SKIP_REASON_POLICY in request.skips:
            item = {
                "name": "B:SET",
                "skip": restore_pb2.SKIP_REASON_POLICY,
                "warnings": ["its restore policy has ramp_rate 0.5"],
            }
            yield restore_service_pb2.ReadPlanResponse(items=[item])
            return
        items = self.items
        if self.state.replaced:
            items = [{**items[0], "target": number(77.0)}]
        yield restore_service_pb2.ReadPlanResponse(items=items)

    def ExecutePlan(self, request, context):
        self.state.calls.append(request)
        if request.digest != self.plan.digest:
            refuse(
                context,
                code_pb2.FAILED_PRECONDITION,
                errors_pb2.ERROR_REASON_PLAN_DIGEST_MISMATCH,
                "another digest",
                digest=self.plan.digest,
            )
        self.keep_waiting("ExecutePlan", context)
        return restore_service_pb2.ExecutePlanResponse(
            restore=self.restore(restore_pb2.RESTORE_STATE_WAITING)
        )

    def ApprovePlan(self, request, context):
        self.state.calls.append(request)
        approval = {"plan_id": request.id, "state": restore_pb2.APPROVAL_STATE_APPROVED}
        return restore_service_pb2.ApprovePlanResponse(approval=approval)

    def restore(self, state):
        done = state == restore_pb2.RESTORE_STATE_COMPLETED
        verdict = restore_pb2.VERDICT_VERIFIED if done else restore_pb2.VERDICT_PENDING
        verified = done and self.state.restore_verified
        counts = [{"verdict": verdict, "pvs": 2 if verified or not done else 1}]
        if done and not verified:
            counts.append({"verdict": restore_pb2.VERDICT_REFUSED, "pvs": 1})
        return restore_pb2.Restore(
            id=RESTORE, plan_id=PLAN, state=state, verdicts=counts, all_verified=verified
        )

    def WatchRestore(self, request, context):
        response = restore_service_pb2.WatchRestoreResponse
        yield response(restore=self.restore(restore_pb2.RESTORE_STATE_WRITING))
        hold = self.state.hold_restore
        while hold is not None and context.is_active() and not hold.wait(0.02):
            pass
        if self.state.restore_fails:
            failed = self.restore(restore_pb2.RESTORE_STATE_FAILED)
            failed.error.reason = self.state.restore_fails
            failed.error.message = "nothing was written"
            yield response(restore=failed)
            return
        ended = (
            restore_pb2.RESTORE_STATE_ABORTED
            if "aborted" in self.state.calls
            else restore_pb2.RESTORE_STATE_COMPLETED
        )
        yield response(restore=self.restore(ended))

    def keep_waiting(self, method, context):
        while self.state.unanswered == method and context.is_active():
            time.sleep(0.02)

    def AbortRestore(self, request, context):
        self.state.calls += ["aborted", request]
        self.keep_waiting("AbortRestore", context)
        if self.state.hold_restore is not None:
            self.state.hold_restore.set()
        return restore_service_pb2.AbortRestoreResponse(
            restore=self.restore(restore_pb2.RESTORE_STATE_WRITING)
        )

    def PauseRestore(self, request, context):
        self.state.calls += ["paused", request]
        return restore_service_pb2.PauseRestoreResponse(
            restore=self.restore(restore_pb2.RESTORE_STATE_PAUSED)
        )

    def ReadRestore(self, request, context):
        if not self.state.restore_verified:
            yield restore_service_pb2.ReadRestoreResponse(
                items=[
                    {
                        "name": "A:SET",
                        "verdict": restore_pb2.VERDICT_REFUSED,
                        "epics_status": "ECA_NOWTACCESS",
                        "explanation": "The IOC refused it",
                    }
                ]
            )


class Jobs(job_service_pb2_grpc.JobServiceServicer):
    def __init__(self, state):
        self.state = state

    def GetJob(self, request, context):
        job = job_pb2.Job(id=request.id, state=job_pb2.JOB_STATE_RUNNING)
        return job_service_pb2.GetJobResponse(job=job)

    def WatchJob(self, request, context):
        for state, done in ((job_pb2.JOB_STATE_RUNNING, 1), (job_pb2.JOB_STATE_SUCCEEDED, 2)):
            yield job_service_pb2.WatchJobResponse(
                job=job_pb2.Job(id=JOB, state=state, done=done, total=2, snapshot_id=NEW)
            )


class Audit(audit_service_pb2_grpc.AuditServiceServicer):
    def __init__(self, state):
        self.state = state

    def ListEvents(self, request, context):
        self.state.calls.append(request)
        event = audit_pb2.AuditEvent(sequence=7, action="access.key.create", target="keys/1")
        event.actor.principal = "ann"
        event.after_json = '{"name":"ops"}'
        return audit_service_pb2.ListEventsResponse(events=[event])

    def VerifyChain(self, request, context):
        answer = audit_service_pb2.VerifyChainResponse(last_sequence=7, anchor_count=3)
        answer.last_anchor_time.FromNanoseconds(10**18)
        if self.state.cut_off:
            answer.findings.add(sequence=5, problem="rows 5 to 7 were anchored and are cut off")
        return answer

    def WatchEvents(self, request, context):
        self.state.calls.append(request)
        yield audit_service_pb2.WatchEventsResponse(checkpoint={"sequence": 6})
        act = audit_pb2.AuditEvent(sequence=7, action="access.key.create", target="keys/1")
        act.actor.principal = "ann"
        yield audit_service_pb2.WatchEventsResponse(events={"events": [act]})


class Events(event_service_pb2_grpc.EventServiceServicer):
    """Breaks the first stream after an event; the second one goes on and ends."""

    def __init__(self, state):
        self.state = state

    def WatchEvents(self, request, context):
        self.state.calls.append(request)
        yield event_service_pb2.WatchEventsResponse(begin={"token": "t0", "resumed": False})
        if request.token != "t1":
            event = event_pb2.Event(token="t1", kind="EVENT_KIND_CREATED", id="s1", name="nightly")
            event.resource = event_pb2.EVENT_RESOURCE_SNAPSHOT
            event.actor.principal = "ann"
            yield event_service_pb2.WatchEventsResponse(events={"events": [event]})
            refuse(
                context,
                code_pb2.UNAVAILABLE,
                errors_pb2.ERROR_REASON_UPSTREAM_UNAVAILABLE,
                "gone for a moment",
            )
        yield event_service_pb2.WatchEventsResponse(resync_required={"reason": "too old"})
        bulk = event_pb2.Event(token="t2", kind="EVENT_KIND_UPDATED", bulk={"created": 40_000})
        bulk.resource = event_pb2.EVENT_RESOURCE_PV
        yield event_service_pb2.WatchEventsResponse(events={"events": [bulk]})


class Access(access_service_pb2_grpc.AccessServiceServicer):
    def __init__(self, state):
        self.state = state

    def WhoAmI(self, request, context):
        metadata = dict(context.invocation_metadata())
        if metadata.get("authorization") != f"Bearer {KEY}":
            refuse(
                context,
                code_pb2.UNAUTHENTICATED,
                errors_pb2.ERROR_REASON_UNAUTHENTICATED,
                "no such key",
            )
        return access_service_pb2.WhoAmIResponse(
            principal="alice",
            roles=["admin"],
            grants=[access_pb2.Grant(role="admin")],
            permissions=["access.keys.list"],
        )

    def RevokeKey(self, request, context):
        return access_service_pb2.RevokeKeyResponse(key=access_pb2.Key(id=request.id, name="gui"))

    def CreateKey(self, request, context):
        key = access_pb2.Key(id=OLD, name=request.name, grants=request.grants)
        return access_service_pb2.CreateKeyResponse(key=key, secret="the-secret")


class System(system_service_pb2_grpc.SystemServiceServicer):
    def __init__(self, state):
        self.state = state

    def ForceBreaker(self, request, context):
        return system_service_pb2.ForceBreakerResponse(
            breaker={"ioc": request.ioc, "mode": request.mode, "reason": request.reason}
        )

    def GetSystemSummary(self, request, context):
        return system_service_pb2.GetSystemSummaryResponse(
            summary={
                "healthy": False,
                "pvs": 2,
                "version": "0.1.0",
                "shards": [
                    {
                        "state": {"shard": 3, "fresh": True},
                        "owner": "monitor-0",
                        "channels": 1234,
                        "connected": 1200,
                        "unsupported": 34,
                    }
                ],
                "parts": [{"name": "postgres", "state": 2, "detail": "refused"}],
                "instances": [
                    {"service": "monitor", "name": "far:7", "version": "0.1.0", "serving": True}
                ],
                "iocs": [
                    {
                        "address": "ioc7:5064",
                        "channels": 1234,
                        "timeouts": 5,
                        "breakers": [{"service": "restore", "instance": "far:8", "state": 2}],
                    },
                    {
                        "address": "ioc8:5064",
                        "channels": 7,
                        "connected": 7,
                        "echo": {"nanos": 1_500_000},
                        "forced": {"mode": 2, "actor": {"principal": "ann"}},
                    },
                ],
                "findings": [
                    {
                        "code": system_service_pb2.FINDING_CODE_PART_DOWN,
                        "level": 3,
                        "part": "postgres",
                        "since": {"seconds": 1_700_000_000},
                        "text": "Postgres is away",
                        "remedy": "start it",
                    }
                ],
            }
        )


@pytest.fixture
def state():
    return State()


def with_empty_answers(servicer, service):
    """The servicer, with empty answers to what it leaves out, where the test wants them."""
    written = vars(type(servicer))
    for method in service.methods_by_name.values():
        if method.name not in written:
            answer = GetMessageClass(method.output_type)
            setattr(servicer, method.name, empty_answer(servicer, answer, method.server_streaming))
    return servicer


def empty_answer(servicer, answer, streams):
    def reply(request, context):
        if not servicer.state.answers_all:
            context.abort(grpc.StatusCode.UNIMPLEMENTED, "not here")
        return iter([answer()]) if streams else answer()

    return reply


@pytest.fixture
def address(state):
    server = grpc.server(futures.ThreadPoolExecutor(8))
    for servicer, contract, generated in (
        (Catalog(state), catalog_service_pb2, catalog_service_pb2_grpc),
        (Monitor(state), monitor_service_pb2, monitor_service_pb2_grpc),
        (Snapshots(state), snapshot_service_pb2, snapshot_service_pb2_grpc),
        (Comparisons(state), compare_service_pb2, compare_service_pb2_grpc),
        (Policies(state), policy_service_pb2, policy_service_pb2_grpc),
        (Restores(state), restore_service_pb2, restore_service_pb2_grpc),
        (Jobs(state), job_service_pb2, job_service_pb2_grpc),
        (Access(state), access_service_pb2, access_service_pb2_grpc),
        (Audit(state), audit_service_pb2, audit_service_pb2_grpc),
        (Events(state), event_service_pb2, event_service_pb2_grpc),
        (System(state), system_service_pb2, system_service_pb2_grpc),
    ):
        (service,) = contract.DESCRIPTOR.services_by_name.values()
        add = getattr(generated, f"add_{service.name}Servicer_to_server")
        add(with_empty_answers(servicer, service), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(0).wait()


@dataclass
class Result:
    """How one run of `drey` ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return [json.loads(line) for line in self.out.splitlines()]


@pytest.fixture
def drey(address, capsys, monkeypatch, tmp_path):
    """Run `drey` in this process against the server; gives exit code and both outputs."""
    monkeypatch.setenv("DREY_SERVER", address)
    monkeypatch.setenv("DREY_KEY", KEY)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)

    def call(*words):
        capsys.readouterr()
        code = run_command(words)
        captured = capsys.readouterr()
        return Result(int(code), captured.out, captured.err)

    return call
