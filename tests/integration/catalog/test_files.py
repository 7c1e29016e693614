from __future__ import annotations

import uuid

from google.protobuf.duration_pb2 import Duration
from grpc import StatusCode

from drey.catalog.v1 import catalog_pb2
from drey.catalog.v1 import catalog_service_pb2 as rpc
from drey.common.v1 import selector_pb2, value_pb2
from drey_runtime.database import Database
from drey_runtime.jobs import ImportResult, JobFilter, JobState, JobStore
from tests.integration.catalog.helpers import create, import_, names, refused

CSV = b"""Setpoint,Readback,Device,Description,Region,Area,Subsystem
QUAD:LI21:201:BDES,QUAD:LI21:201:BACT,QUAD,"Quad, 201\n\xc3\xa4","Cu Linac","LI21","Magnet"
FBCK:LNG6:1:BC2ELTOL,,,,"Feedback-All","LIMITS,EXTRA","FBCK"
,BPM:1:X,BPM,,nan,None,
"""


def actions(rows) -> list[tuple[int, str, int]]:
    return [(row.line, row.name, row.action) for row in rows]


async def export(service, **selector) -> bytes:
    request = rpc.ExportPvsRequest(selector=selector_pb2.Selector(**selector))
    return b"".join([answer.data async for answer in service.catalog.ExportPvs(request)])


async def test_a_file_is_imported(service) -> None:
    rows, summary = await import_(service, CSV)
    assert actions(rows) == [
        (2, "QUAD:LI21:201:BDES", 1),
        (4, "FBCK:LNG6:1:BC2ELTOL", 1),
        (5, "BPM:1:X", 1),
    ]
    assert (summary.rows, summary.added, summary.applied) == (3, 3, True)
    assert list(summary.tag_groups_added) == ["Area", "Region", "Subsystem"]
    pv = (await service.catalog.GetPv(rpc.GetPvRequest(name="FBCK:LNG6:1:BC2ELTOL"))).pv
    assert [t.tag for t in pv.tags] == ["EXTRA", "LIMITS", "Feedback-All", "FBCK"]
    readback = (await service.catalog.GetPv(rpc.GetPvRequest(name="BPM:1:X"))).pv
    assert (readback.setpoint.address, list(readback.tags)) == ("", [])


async def test_a_second_import_changes_what_differs(service) -> None:
    await import_(service, CSV)
    before = (await service.catalog.GetPv(rpc.GetPvRequest(name="BPM:1:X"))).pv
    _, summary = await import_(service, CSV)
    assert (summary.unchanged, summary.changed, summary.added) == (3, 0, 0)
    assert (await service.catalog.GetPv(rpc.GetPvRequest(name="BPM:1:X"))).pv == before
    rows, summary = await import_(service, CSV.replace(b"BPM,,nan", b"BPM,x,Ring"))
    assert [(r.name, r.column, r.action) for r in rows] == [("BPM:1:X", "Description,Tags", 2)]
    assert (summary.unchanged, summary.changed) == (2, 1)
    _, kept = await import_(service, CSV, keep_existing=True)
    assert kept.unchanged == 3


async def test_what_a_file_does_not_speak_of_stays(service) -> None:
    await create(service, "A:SP", "A:RB", device="d", read_only=True, tags=[("Own", "t")])
    rows, _ = await import_(service, b"Setpoint,Description,Area\nA:SP,new,LI21\n")
    assert [row.column for row in rows] == ["Description,Tags"]
    pv = (await service.catalog.GetPv(rpc.GetPvRequest(name="A:SP"))).pv
    assert (pv.readback.address, pv.device, pv.read_only) == ("A:RB", "d", True)
    assert [t.tag for t in pv.tags] == ["LI21", "t"]


async def test_a_dry_run_changes_nothing(service) -> None:
    rows, summary = await import_(service, CSV, dry_run=True)
    assert (len(rows), summary.added, summary.applied) == (3, 3, False)
    assert await names(service) == []


async def test_a_refused_row_means_that_nothing_is_done(service) -> None:
    bad = CSV + b"with blank,,,,,,\nQUAD:LI21:201:BDES,,,,,,\n"
    rows, summary = await import_(service, bad)
    assert (summary.applied, summary.refused) == (False, 2)
    assert [(r.line, r.action) for r in rows] == [(6, 4), (7, 4)]
    assert rows[0].column == "Setpoint"
    assert rows[0].error.message
    assert await names(service) == []


async def test_bad_tolerances_are_refused_by_line_and_column(service) -> None:
    rows, _ = await import_(service, b"Setpoint,Abs Tolerance\nA,nan\nB,-1\nC,0.5\n")
    assert [(r.line, r.column) for r in rows] == [(2, "Abs Tolerance"), (3, "Abs Tolerance")]


async def test_a_policy_that_contradicts_the_pv_is_refused(service) -> None:
    rows, summary = await import_(service, b"Setpoint,Restore Completion\nA,readback\nB,sent\n")
    assert (summary.applied, [r.action for r in rows]) == (False, [4, 1])
    assert rows[0].error.field == "restore_policy.completion"
    assert await names(service) == []


async def test_a_broken_file_is_refused_whole(service) -> None:
    for content in (b"", b"Device\nx\n", b'Setpoint\n"cut', b"Setpoint\n\xff\n"):
        with refused(StatusCode.INVALID_ARGUMENT, "MALFORMED_FILE"):
            await import_(service, content)
    with refused(StatusCode.UNIMPLEMENTED, "NOT_IMPLEMENTED"):
        await import_(service, CSV, format=catalog_pb2.FILE_FORMAT_BURT_REQ)


async def test_messages_in_the_wrong_order_are_refused(service) -> None:
    async def data_first():
        yield rpc.ImportPvsRequest(data=b"x")

    async def nothing():
        return
        yield

    for messages in (data_first, nothing):
        with refused(StatusCode.INVALID_ARGUMENT, "INVALID_FIELD", "options"):
            async for _ in service.catalog.ImportPvs(messages()):
                pass


async def test_a_repeated_import_answers_as_the_first(service) -> None:
    id = str(uuid.uuid4())
    first = await import_(service, CSV, request_id=id)
    assert await import_(service, CSV, request_id=id) == first
    with refused(StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED"):
        await import_(service, CSV + b"More,,,,,,\n", request_id=id)


async def test_an_import_is_found_again_as_a_job(service) -> None:
    """Each that was applied, also where nothing changed; none that was not."""
    first = (await import_(service, CSV))[1].job_id
    second = (await import_(service, CSV))[1].job_id
    for content, options in ((CSV, {"dry_run": True}), (CSV + b"with blank,,,,,,\n", {})):
        assert (await import_(service, content, **options))[1].job_id == ""
    async with Database(service.settings.postgres_url.get_secret_value()) as db:
        store = JobStore(db)
        jobs = [await store.get_job(first), await store.get_job(second)]
        assert [job.id for job in await store.list_jobs(JobFilter())] == [second, first]
        assert await store.claimable_jobs(["import"], 10) == []
    for job, counts in zip(jobs, ((3, 0, 0), (0, 0, 3)), strict=True):
        assert (job.kind, job.state, job.done, job.total) == ("import", JobState.SUCCEEDED, 3, 3)
        assert job.principal
        assert ImportResult.from_text(job.result) == ImportResult(3, *counts)
        assert 0 < job.create_time_ns <= job.end_time_ns


async def test_an_export_is_imported_to_the_same(service) -> None:
    await import_(service, CSV)
    policy = catalog_pb2.RestorePolicy(
        stage=3,
        ramp_rate=0.1,
        timeout=Duration(seconds=2, nanos=1),
        settle=Duration(nanos=100),
        completion=catalog_pb2.COMPLETION_DONE_CHANNEL,
        done_channel=".DMOV",
        done_value=-2.5e300,
        allowed=value_pb2.Range(low=-1.5, high=float("inf")),
    )
    await create(
        service,
        'odd,"name',
        "rb",
        name="other",
        description="first\tline\nsecond \\ line",
        setpoint_tolerance=value_pb2.Tolerance(absolute=0.1, relative=1e-17),
        restore_policy=policy,
        tags=[("G", "a,b")],
    )
    await create(service, "pva:1", protocol=catalog_pb2.PROTOCOL_PVA)
    content = await export(service, all=True)
    rows, summary = await import_(service, content)
    assert (list(rows), summary.unchanged) == ([], 5)
    before = {pv.name: pv for pv in (await service.catalog.ListPvs(rpc.ListPvsRequest())).pvs}
    await service.catalog.PurgePvs(rpc.PurgePvsRequest(selector=selector_pb2.Selector(all=True)))
    await import_(service, content)
    for pv in (await service.catalog.ListPvs(rpc.ListPvsRequest())).pvs:
        old = before[pv.name]
        for field in ("id", "number", "etag", "create_time", "update_time"):
            old.ClearField(field)
            pv.ClearField(field)
        for channel in (old.setpoint, old.readback, pv.setpoint, pv.readback):
            channel.ClearField("number")
        assert pv == old
    with refused(StatusCode.INVALID_ARGUMENT, "EMPTY_SELECTOR"):
        await export(service)
