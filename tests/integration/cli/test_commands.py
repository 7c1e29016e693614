"""The commands against a server of the contracts: what they send, show, and exit with."""

import io
from concurrent import futures

import grpc

from drey.audit.v1 import audit_service_pb2
from drey.catalog.v1 import catalog_pb2, catalog_service_pb2
from drey.common.v1 import errors_pb2
from drey.compare.v1 import compare_pb2, compare_service_pb2
from drey.event.v1 import event_pb2, event_service_pb2, event_service_pb2_grpc
from drey.restore.v1 import restore_service_pb2
from drey.snapshot.v1 import snapshot_service_pb2
from drey.system.v1 import system_service_pb2
from drey_cli.commands.status import draw_summary, owners_table
from drey_cli.render.table import Cell
from tests.integration.cli.conftest import KEY

OLD = "01930000-0000-7000-8000-00000000aaaa"
NEW = "01940000-0000-7000-8000-00000000bbbb"
DEAD = "01920000-0000-7000-8000-00000000cccc"
PLAN = "01950000-0000-7000-8000-000000000001"
RESTORE = "01950000-0000-7000-8000-000000000002"
JOB = "01950000-0000-7000-8000-000000000003"


def test_whoami_sends_the_key(drey, monkeypatch):
    assert "alice (admin)" in drey("whoami").out
    monkeypatch.setenv("DREY_KEY", "wrong")
    refused = drey("whoami", "--json")
    assert refused.code == 3
    assert refused.json["error"]["reason"] == "UNAUTHENTICATED"


def test_list_follows_the_pages_and_json_is_one_document(drey, state):
    result = drey("pv", "list", "--json", "--tag", "Region=LI21,LI22", "--device", "QUAD")
    assert result.code == 0
    assert [pv["name"] for pv in result.json["pvs"]] == ["A:SET", "B"]
    selector = state.of(catalog_service_pb2.ListPvsRequest)[0].selector
    assert list(selector.tags[0].tags) == ["LI21", "LI22"]
    assert list(selector.devices) == ["QUAD"]
    limited = drey("pv", "list", "--limit", "1")
    assert "A:SET" in limited.out and "1 of 2 PVs" in limited.out


def test_json_is_taken_before_the_command_too(drey):
    assert drey("--json", "pv", "list").json["total"] == 2


def test_refusals_show_reason_field_and_remedy(drey):
    missing = drey("pv", "show", "NO:SUCH")
    assert missing.code == 1
    assert "NOT_FOUND" in missing.err and "NO:SUCH" in missing.err
    bad = drey("tag", "add", "Region=X", "--glob", "*", "--json")
    error = bad.json["error"]
    assert (bad.code, error["field"], error["reason"]) == (1, "selector.globs[0]", "INVALID_FIELD")
    gated = drey("snapshot", "take", "X*")
    assert gated.code == 1
    assert "COVERAGE_TOO_SMALL" in gated.err and "--max-missing" in gated.err


def test_no_choice_is_a_usage_error_and_unknown_services_are_refused(drey):
    assert drey("pv", "get").code == 2
    assert drey("pv", "nonsense").code == 2
    assert drey("pv", "show", "A:SET", "--policy").code == 1


def test_a_choice_of_nothing_is_refused(drey):
    for arguments in (("get", "NO*"), ("watch", "NO*"), ("get", "NO*", "--json")):
        refused = drey("pv", *arguments)
        assert refused.code == 1, arguments
        assert "nothing in the catalog matches NO*" in refused.out + refused.err
    assert "NO" not in drey("pv", "get", "NO*").out


def test_a_readback_s_address_is_linked_to_its_pv(drey):
    shown = drey("pv", "get", "A:RB")
    assert shown.code == 0 and "A:RB is the readback of A:SET" in shown.out + shown.err
    (link,) = drey("pv", "get", "A:RB", "--json").json["links"]
    assert (link["asked"], link["name"]) == ("A:RB", "A:SET")


def test_get_formats_by_metadata_and_names_what_is_not_there(drey):
    shown = drey("pv", "get", "A:SET")
    assert shown.code == 0 and "1.23 A" in shown.out
    partly = drey("pv", "get", "A:SET", "NOPE", "--utc")
    assert partly.code == 1 and "NOPE" in partly.err
    assert "2023-11-14T22:13:20.123456789Z" in partly.out
    as_json = drey("pv", "get", "A:SET", "NOPE", "--json").json
    assert [row["name"] for row in as_json["rows"]] == ["A:SET"]
    assert (as_json["not_found"], as_json["error"]["reason"]) == (["NOPE"], "NOT_FOUND")


def test_set_sends_a_mask_and_the_etag(drey, state):
    assert drey("pv", "set", "A:SET", "--abs", "0.5", "--stage", "2").code == 0
    request = state.of(catalog_service_pb2.UpdatePvRequest)[0]
    assert list(request.update_mask.paths) == ["setpoint.tolerance", "restore_policy"]
    assert (request.pv.etag, request.pv.setpoint.tolerance.absolute) == ("e1", 0.5)
    assert request.pv.restore_policy.stage == 2
    assert drey("pv", "set", "A:SET").code == 2


def test_rm_asks_first_and_dry_run_changes_nothing(drey, state):
    assert drey("pv", "rm", "--device", "QUAD").code == 2
    assert "would delete 3 PVs" in drey("pv", "rm", "--device", "QUAD", "--dry-run").out
    assert all(call.dry_run for call in state.of(catalog_service_pb2.PurgePvsRequest))
    assert drey("pv", "rm", "--device", "QUAD", "--yes").code == 0
    assert state.of(catalog_service_pb2.PurgePvsRequest)[-1].request_id


def test_deleted_pvs_come_back_and_dry_run_changes_nothing(drey, state):
    assert drey("pv", "undelete").code == 2
    assert "would bring back 2 PVs" in drey("pv", "undelete", "A:SET", "--dry-run").out
    assert drey("pv", "undelete", "A:SET", "B*", "--json").json == {"undeleted": 2}
    dry, done = state.of(catalog_service_pb2.BatchUndeletePvsRequest)
    assert dry.dry_run and not dry.request_id
    assert done.request_id and not done.dry_run
    assert (list(done.selector.names), list(done.selector.globs)) == (["A:SET"], ["B*"])


def test_of_several_deleted_tags_the_last_one_comes_back(drey, state):
    assert "LI22 is back on 4 PVs" in drey("tag", "undelete", "Region=LI22").out
    (request,) = state.of(catalog_service_pb2.UndeleteTagRequest)
    assert request.id == "t3" and request.request_id
    assert drey("tag", "undelete", "old", "--json").json == {"pvs_changed": 9}
    (request,) = state.of(catalog_service_pb2.UndeleteTagGroupRequest)
    assert request.id == "g2"
    for living in ("Region=LI21", "Region", "Nothing"):
        refused = drey("tag", "undelete", living)
        assert refused.code == 1 and living in refused.err and "remedy" in refused.err
    assert drey("tag", "undelete", "Region=LI21,LI22").code == 2


def test_deleted_snapshots_come_back_by_title_and_part_of_the_id(drey, state):
    assert "is back" in drey("snapshot", "undelete", "dead").out
    assert drey("snapshot", "undelete", "cccc", "--json").json["snapshots"][0]["id"] == DEAD
    requests = state.of(snapshot_service_pb2.UndeleteSnapshotRequest)
    assert [request.id for request in requests] == [DEAD, DEAD]
    assert all(request.request_id for request in requests)
    assert drey("snapshot", "undelete", "old").code == 1


def test_groups_show_their_tags_and_json_names_what_it_holds(drey, state):
    shown = drey("tag", "groups").out
    assert "Region" in shown and "LI21" in shown
    made = drey("tag", "create", "region=LI23", "--json")
    assert made.json["tag_group"]["name"] == "Region"
    assert state.of(catalog_service_pb2.CreateTagRequest)[0].tag_group_id == "g1"


def test_devices_are_listed(drey, state):
    done = drey("pv", "devices", "--tag", "Region=LI21")
    assert (done.code, done.out.split()[-2:]) == (0, ["QUAD", "2"])
    assert state.of(catalog_service_pb2.ListDevicesRequest)[-1].selector.tags[0].group == "Region"
    assert drey("pv", "devices", "--search", "no").code != 0


def test_import_streams_chunks_and_shows_refused_rows(drey, state, tmp_path):
    good = tmp_path / "good.csv"
    good.write_bytes(b"Setpoint,Readback\n" + b"A:SET,A:RBV\n" * 100_000)
    result = drey("pv", "import", str(good), "--dry-run")
    assert result.code == 0
    assert state.imported == good.read_bytes()
    assert state.of(catalog_pb2.Pv) == []
    bad = tmp_path / "bad.csv"
    bad.write_bytes(b"Setpoint,Readback\nA,B\nBAD,\n")
    refused = drey("pv", "import", str(bad))
    assert refused.code == 1
    assert "3" in refused.out and "Setpoint" in refused.out and "nothing was changed" in refused.out


def test_export_writes_a_whole_file(drey, tmp_path):
    target = tmp_path / "out.csv"
    assert drey("pv", "export", "-o", str(target)).code == 0
    assert target.read_bytes() == b"Setpoint,Readback\nA:SET,A:RBV\n"
    assert [path.name for path in tmp_path.iterdir()] == ["out.csv"]


def test_watch_counts_json_lines(drey):
    result = drey("pv", "watch", "A:SET", "--json", "--count", "2")
    assert result.code == 0
    kinds = [next(iter(line)) for line in result.lines]
    assert kinds == ["baseline_begin", "baseline", "baseline_end", "diff", "diff"]


def test_watch_connects_again_with_its_token(drey, state):
    state.drop_first_watch = True
    result = drey("pv", "watch", "A:SET", "--count", "1")
    assert result.code == 0
    assert "connecting again" in result.err
    assert state.watches == 2
    assert state.calls[-1].token == "t1"
    assert "setpoint=2" in result.out


def test_drift_tells_what_enters_and_what_leaves(drey, state):
    result = drey("snapshot", "drift", "golden:run", "--hysteresis", "0.8", "--for", "1s")
    assert result.code == 0
    assert "A:SET set reference=0 now=1 1× different" in result.out
    assert "B:SET set reference=0 now=9 9× different" in result.out
    assert "A:SET same again" in result.out
    assert "2 PVs compared: 1 different, 0 unknown, 1 the same" in result.out
    spec = state.calls[-1].spec
    assert (spec.reference.golden.label, spec.hysteresis) == ("run", 0.8)


def test_drift_goes_on_with_its_token(drey, state):
    state.drop_first_watch = True
    result = drey("snapshot", "drift", "latest", "--json", "--for", "2s")
    assert result.code == 0
    kinds = [next(iter(line)) for line in result.lines]
    assert kinds[:5] == [
        *("baseline_begin", "baseline", "summary", "baseline_end", "connection_lost"),
    ]
    assert state.calls[-1].token == "t1"
    assert kinds[5:8] == ["baseline_begin", "summary", "baseline_end"]


def test_snapshots_are_named_in_four_ways(drey):
    for name in (OLD, "0193", "aaaa", "old", "latest~1"):
        assert drey("snapshot", "show", name, "--json").json["snapshot"]["id"] == OLD
    assert drey("snapshot", "show", "latest", "--json").json["snapshot"]["id"] == NEW
    assert "there is no snapshot" in drey("snapshot", "show", "zzz").err


def test_take_follows_the_job_when_it_lasts(drey, state):
    state.take_as_job = True
    result = drey("snapshot", "take", "--all", "--title", "t", "--max-missing", "5", "--json")
    assert result.code == 0
    assert result.json["snapshot"]["id"] == NEW
    request = state.of(snapshot_service_pb2.TakeSnapshotRequest)[0]
    assert request.spec.gates.max_missing == 5 and request.spec.selector.all and request.request_id
    assert drey("snapshot", "take", "--all", "--no-wait", "--json").json["job"]["id"] == JOB


def test_edit_keeps_other_labels(drey, state):
    assert drey("snapshot", "edit", "new", "--label", "x", "--title", "y").code == 0
    request = state.of(snapshot_service_pb2.UpdateSnapshotRequest)[0]
    assert list(request.update_mask.paths) == ["title", "labels"]
    assert request.snapshot.etag == "s1"


def test_a_golden_mark_is_set_cleared_and_listed(drey, state):
    found = drey("snapshot", "golden", "set", "new", "--label", "run", "--reason", "tuned")
    assert found.code == 0 and OLD in found.out + found.err
    request = state.of(snapshot_service_pb2.SetGoldenRequest)[0]
    assert (request.snapshot_id, request.label, request.reason) == (NEW, "run", "tuned")
    assert request.request_id
    assert drey("snapshot", "golden", "clear", "old").code == 0
    assert state.of(snapshot_service_pb2.ClearGoldenRequest)[0].snapshot_id == OLD
    assert "run" in drey("snapshot", "golden", "list").out
    drey("snapshot", "compare", "golden:run", "live")
    request = state.of(compare_service_pb2.CompareRequest)[0]
    assert request.spec.reference.golden.label == "run"


def test_read_joins_the_parts_of_an_array(drey):
    lines = drey("snapshot", "read", "latest", "--json").lines
    assert lines[0]["snapshot"]["title"] == "new"
    assert lines[1]["setpoint"]["float64_array"]["elements"] == [0, 1, 2, 3]
    assert lines[2]["name"] == "X"


def test_compare_exits_by_what_was_found(drey, state):
    found = drey("snapshot", "compare", "old", "live", "--only", "different", "--sort", "deviation")
    assert found.code == 4
    assert "A:SET" in found.out and "10×" in found.out and "1 different" in found.out
    request = state.of(compare_service_pb2.CompareRequest)[0]
    assert request.spec.others[0].HasField("live") and request.page_size == 50
    assert list(request.spec.classes) == [compare_pb2.DIFFERENCE_CLASS_DIFFERENT]
    assert request.spec.with_values
    assert drey("snapshot", "compare", "old", "old").code == 0
    assert drey("snapshot", "compare", "old", "live", "--exit-zero").code == 0


def test_several_are_compared_as_a_matrix(drey, state):
    found = drey("snapshot", "compare", "old", "old", "new", "live", "--limit", "0")
    assert found.code == 4
    (line,) = [line for line in found.out.splitlines() if "A:SET" in line]
    assert "+2" in line and "+3" in line and "live" in line
    assert found.out.count("PVs compared") == 3
    request = state.of(compare_service_pb2.CompareRequest)[0]
    assert len(request.spec.others) == 3 and not request.spec.with_values
    shown = drey("snapshot", "compare", "live", "new", "--json").json
    assert len(shown["header"]["summaries"]) == 1 and shown["rows"][0]["name"] == "A:SET"


def test_plan_shows_counts_by_stage_and_skips(drey):
    shown = drey("restore", "plan", "latest", "--device", "QUAD").out
    assert "2 of 3 PVs" in shown and "read-only" in shown and "stage 0" in shown


def test_run_executes_by_digest_and_exits_by_the_verdicts(drey, state):
    assert drey("restore", "run", "latest").code == 2
    assert state.of(restore_service_pb2.ExecutePlanRequest) == []
    good = drey("restore", "run", PLAN, "--yes")
    assert good.code == 0 and "all verified" in good.out
    request = state.of(restore_service_pb2.ExecutePlanRequest)[0]
    assert request.digest == state.digest and request.request_id
    state.restore_verified = False
    bad = drey("restore", "run", PLAN, "--yes")
    assert bad.code == 4
    assert "NOT all verified" in bad.out and "ECA_NOWTACCESS" in bad.out
    assert "The IOC refused it" in bad.out
    other = drey("restore", "run", PLAN, "--yes", "--digest", "e" * 64, "--json")
    assert other.code == 1
    assert other.json["error"]["reason"] == "PLAN_DIGEST_MISMATCH"


def test_approve_sends_the_digest_that_it_computed_and_none_of_other_items(drey, state):
    assert drey("restore", "approve", PLAN).code == 2
    good = drey("restore", "approve", PLAN, "--yes", "--reason", "shutdown")
    assert good.code == 0 and "approved" in good.out
    [request] = state.of(restore_service_pb2.ApprovePlanRequest)
    assert (request.digest, request.reason) == (state.digest, "shutdown")
    state.replaced = True
    refused = drey("restore", "approve", PLAN, "--yes", "--json")
    assert refused.code == 1
    assert refused.json["error"]["reason"] == "PLAN_DIGEST_MISMATCH"
    assert state.of(restore_service_pb2.ApprovePlanRequest) == [request]


def test_run_refuses_a_plan_whose_items_are_not_those_of_its_digest(drey, state):
    state.replaced = True
    refused = drey("restore", "run", PLAN, "--yes", "--json")
    assert refused.code == 1
    assert refused.json["error"]["reason"] == "PLAN_DIGEST_MISMATCH"
    assert state.of(restore_service_pb2.ExecutePlanRequest) == []


def test_latest_is_the_newest_plan_of_the_caller(drey, state):
    found = drey("restore", "run", "latest", "--yes")
    assert found.code == 0 and "alice" in found.out
    assert state.of(restore_service_pb2.ExecutePlanRequest)[0].plan_id == PLAN
    state.no_own_plan = True
    none = drey("restore", "run", "latest", "--yes", "--json")
    error = none.json["error"]
    assert (none.code, error["reason"]) == (1, "NOT_FOUND")
    assert "alice has no plan" in error["message"] and "needs its id" in error["remedy"]
    assert len(state.of(restore_service_pb2.ExecutePlanRequest)) == 1


def test_abort_latest_is_the_newest_restore_of_the_caller(drey, state):
    none = drey("restore", "abort", "latest", "--json")
    assert none.code == 1
    assert "alice has no restore" in none.json["error"]["message"]
    state.restores_listed = True
    assert drey("restore", "abort", "latest").code == 0
    assert [r.id for r in state.of(restore_service_pb2.AbortRestoreRequest)] == [RESTORE]


def test_a_restore_that_could_not_begin_is_an_error_like_any_other(drey, state):
    state.restore_fails = errors_pb2.ERROR_REASON_LABELS_MOVED
    for command in (("run", PLAN, "--yes"), ("watch", RESTORE)):
        failed = drey("restore", *command)
        assert failed.code == 1 and "all verified" not in failed.out
        assert "nothing was written" in failed.err and "accept-moved" not in failed.err
    as_json = drey("restore", "run", PLAN, "--yes", "--json")
    error = as_json.json["error"]
    assert (as_json.code, as_json.err) == (1, "")
    assert error["reason"] == "LABELS_MOVED" and error["metadata"]["restore_id"] == RESTORE


def test_remedies_name_commands_that_exist(drey):
    for what in (("--plan", "ffffffff"), ("eeeeeeee",)):
        unknown = drey("restore", "show", *what, "--json")
        remedy = unknown.json["error"]["remedy"]
        assert remedy == "see drey restore list --plans"
        assert drey(*remedy.removeprefix("see drey ").split()).code == 0


def test_what_a_policy_keeps_out_is_named(drey):
    shown = drey("restore", "plan", "latest").out
    assert "B:SET" in shown and "ramp_rate 0.5" in shown


def test_key_secret_goes_to_a_private_file(drey, tmp_path):
    target = tmp_path / "k"
    result = drey("key", "create", "gui", "--role", "viewer", "--out", str(target), "--json")
    assert result.code == 0 and "the-secret" not in result.out
    assert target.read_text() == "the-secret\n" and target.stat().st_mode & 0o777 == 0o600
    assert drey("key", "create", "gui", "--role", "viewer", "--out", str(target)).code == 1


def test_a_key_may_be_limited_to_some_pvs(drey):
    words = ("key", "create", "rf", "--role", "restorer", "--tag", "Area=RF", "--json")
    (grant,) = drey(*words).json["key"]["grants"]
    assert grant["role"] == "restorer"
    assert grant["selector"]["tags"] == [{"group": "Area", "tags": ["RF"]}]


def test_status_is_not_ok_when_the_whole_is_not(drey):
    result = drey("status")
    assert result.code == 1
    assert "Postgres is away" in result.out and "NOT healthy" in result.out
    (head, row) = [line.split() for line in result.out.splitlines() if "monitor" not in line][3:5]
    assert dict(zip(head, row, strict=False))["UNSUPPORTED"] == "34", result.out


def test_a_document_names_what_it_holds(drey):
    assert drey("job", "show", JOB, "--json").json["job"]["id"] == JOB
    assert [list(line) for line in drey("job", "watch", JOB, "--json").lines] == [["job"], ["job"]]
    assert drey("key", "revoke", OLD, "--yes", "--json").json["key"]["name"] == "gui"
    assert drey("snapshot", "show", "latest", "--json").json["snapshot"]["id"] == NEW


def test_names_come_from_standard_input(drey, state, monkeypatch):
    monkeypatch.setattr("sys.stdin", io.StringIO("# names\nA:SET\n\nB*\n"))
    assert drey("tag", "add", "Region=X", "--names-from", "-").code == 0
    selector = state.of(catalog_service_pb2.TagPvsRequest)[0].selector
    assert (list(selector.names), list(selector.globs)) == (["A:SET"], ["B*"])


def test_events_are_followed_across_a_lost_connection(drey, state):
    result = drey("event", "watch", "--of", "snapshot", "--of", "pv")
    assert result.code == 0
    created, bulk = result.out.splitlines()[:2]
    assert created.endswith("ann  snapshot  created  nightly  s1") and "40000 new" in bulk
    assert "gone for a moment" in result.err and "events were missed: too old" in result.err
    first, second = state.of(event_service_pb2.WatchEventsRequest)
    assert (first.token, second.token) == ("", "t1")
    assert list(second.resources) == [
        event_pb2.EVENT_RESOURCE_SNAPSHOT,
        event_pb2.EVENT_RESOURCE_PV,
    ]
    shown = drey("event", "watch", "--token", "t1", "--json").json
    assert shown["bulk"]["created"] == 40_000 and shown["token"] == "t2"


def test_a_stream_is_followed_to_where_the_server_is_written_down_then(
    drey, state, address, tmp_path, monkeypatch
):
    """`drey up` that was started again may listen at another port."""
    written = tmp_path / ".drey" / "client.toml"
    written.parent.mkdir(mode=0o700)

    def write_down(server):
        written.write_text(f'server = "{server}"\nkey = "{KEY}"\n')
        written.chmod(0o600)

    class Leaving(event_service_pb2_grpc.EventServiceServicer):
        def WatchEvents(self, request, context):
            write_down(address)
            yield event_service_pb2.WatchEventsResponse(begin={"token": "t0"})
            context.abort(grpc.StatusCode.UNAVAILABLE, "the stack stops")

    server = grpc.server(futures.ThreadPoolExecutor(1))
    event_service_pb2_grpc.add_EventServiceServicer_to_server(Leaving(), server)
    write_down(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    server.start()
    monkeypatch.delenv("DREY_SERVER")
    monkeypatch.delenv("DREY_KEY")
    try:
        result = drey("event", "watch")
    finally:
        server.stop(0).wait()
    assert result.code == 0 and "nightly" in result.out
    assert "the stack stops" in result.err
    assert len(state.of(event_service_pb2.WatchEventsRequest)) == 2


def test_acts_are_followed(drey, state):
    result = drey("audit", "watch", "--by", "ann", "--after", "0")
    assert result.code == 0 and "access.key.create  keys/1" in result.out
    (request,) = state.of(audit_service_pb2.WatchEventsRequest)
    assert (request.principal, request.after_sequence) == ("ann", 0)
    assert request.HasField("after_sequence")


def test_audit_lists_and_verifies(drey, state):
    listed = drey("audit", "list", "--by", "ann", "--action", "access.", "--since", "2026-01-02")
    assert "access.key.create" in listed.out and "keys/1" in listed.out
    (request,) = state.of(audit_service_pb2.ListEventsRequest)
    assert (request.principal, request.action_prefix) == ("ann", "access.")
    assert request.from_time.seconds > 1_767_000_000 and not request.HasField("to_time")
    assert drey("audit", "list", "--json").json["events"][0]["target"] == "keys/1"
    whole = drey("audit", "verify")
    assert whole.code == 0 and "7 acts" in whole.out and "3 anchors" in whole.out
    state.cut_off = True
    cut = drey("audit", "verify")
    assert cut.code == 1 and "cut off" in cut.out
    assert drey("audit", "verify", "--json").json["findings"][0]["sequence"] == "5"


def test_a_rehearsal_is_kept_in_a_new_folder_only(drey, state, tmp_path):
    (tmp_path / "notes").write_text("mine")
    for there in (tmp_path, tmp_path / "notes"):
        refused = drey("restore", "rehearse", PLAN, "--keep", str(there), "--json")
        assert (refused.code, refused.json["error"]["field"]) == (2, "--keep")
    assert (tmp_path / "notes").read_text() == "mine" and state.calls == []


def test_an_export_of_a_restore_takes_no_choice_of_acts(drey, state):
    for option in (["--by", "ann"], ["--object", "keys/1"], ["--since", "2026-01-02"]):
        refused = drey("audit", "export", "--restore", RESTORE, *option)
        assert refused.code == 2 and "--restore" in refused.err
    shown = drey("audit", "export", "--by", "ann", "--output", "csv").out.splitlines()
    assert shown[0].startswith("number,time,by") and "access.key.create" in shown[1]
    assert state.of(audit_service_pb2.ListEventsRequest)[-1].principal == "ann"


def test_a_history_is_a_table_with_a_picture_of_the_values(drey, state):
    shown = drey("pv", "history", "A:SET", "--since", "2020-01-01", "--utc")
    assert shown.code == 0 and "A:SET, 3 snapshots" in shown.out
    request = state.of(snapshot_service_pb2.GetPvHistoryRequest)[0]
    assert request.number == 7 and request.from_time.seconds > 1_577_000_000
    pictures = [line for line in shown.out.splitlines() if "●" in line]
    places = [line.partition("●")[0].count("─") for line in pictures]
    assert places == [6, 0, 11], shown.out
    assert "1 … 3" in shown.out.replace("\u2026", "…").lower()
    limited = drey("pv", "history", "A:SET", "--limit", "2")
    assert limited.out.count("●") == 2 and "--limit 0 shows all" in limited.out
    points = drey("pv", "history", "A:SET", "--json").json["points"]
    assert [point["row"]["setpoint"]["float64_value"] for point in points] == [2.0, 1.0, 3.0]


def test_what_was_changed_before_a_refusal_is_told(drey, state):
    state.answers_all = True
    refused = drey("snapshot", "rm", OLD, NEW, "--yes", "--json")
    assert refused.code == 1 and refused.json["error"]["reason"] == "PROTECTED"
    assert [each["title"] for each in refused.json["snapshots"]] == ["old"]


def test_what_is_not_known_is_not_shown_as_none():
    summary = system_service_pb2.SystemSummary(signs_lost_since={"seconds": 1_700_000_000})
    drawn = draw_summary(summary, utc=True)
    assert isinstance(drawn, list)
    unknown, _ = drawn
    assert isinstance(unknown, Cell)
    assert "unknown since 2023-11-14" in unknown.text and "IOCs" in unknown.text
    summary = system_service_pb2.SystemSummary(
        shards=[{"standbys": [{"instance": "far:8", "warm": True}, {"instance": "far:9"}]}]
    )
    table = owners_table(summary)
    assert "far:8, far:9 (connects)" in str(table.rows)


def test_the_status_has_a_line_for_each_ioc(drey):
    shown = drey("status")
    assert shown.code == 1
    lines = {line.split()[0]: line for line in shown.out.splitlines() if ":5064" in line}
    assert "down" in lines["ioc7:5064"] and "open in restore" in lines["ioc7:5064"]
    assert "1.5 ms" in lines["ioc8:5064"] and "held open by ann" in lines["ioc8:5064"]
    assert "far:7" in shown.out


def test_a_breaker_is_held_and_freed(drey):
    for word, mode in (("open", "held open"), ("close", "held closed"), ("automatic", "automatic")):
        done = drey("breaker", word, "ioc7:5064", "--reason", "repair")
        assert done.code == 0 and f"The breaker of ioc7:5064 is {mode}." in done.out
