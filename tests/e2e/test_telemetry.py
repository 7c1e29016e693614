"""One request is followed through gateway, service, NATS and back; loops and RPCs are measured."""

from __future__ import annotations

import json
import re
import urllib.request
from uuid import uuid4

from prometheus_client.parser import text_string_to_metric_families

from drey.snapshot.v1 import snapshot_pb2, snapshot_service_pb2
from drey_testing.metric_names import declared_metrics
from tests.e2e.conftest import EVERYTHING, Running

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_a_snapshot_is_one_trace_through_gateway_and_service(running: Running) -> None:
    call = running.call()
    call["metadata"] = (*call["metadata"], ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"))
    response = running.snapshots.TakeSnapshot(
        snapshot_service_pb2.TakeSnapshotRequest(
            spec=snapshot_pb2.SnapshotSpec(
                selector=EVERYTHING,
                source=snapshot_pb2.SNAPSHOT_SOURCE_IMAGE_THEN_READ,
                gates=snapshot_pb2.Gates(any_missing={}),
            ),
            request_id=str(uuid4()),
        ),
        **call,
    )
    assert response.job.trace_id == TRACE

    def spans() -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for span in running.collector.spans:
            if span.trace_id == TRACE:
                found.setdefault(span.service, set()).add(span.name)
        return found

    running.pump(lambda: {"drey-gateway", "drey-snapshot"} <= spans().keys())
    method = "drey.snapshot.v1.SnapshotService/TakeSnapshot"
    assert method in spans()["drey-gateway"]
    assert method in spans()["drey-snapshot"]
    running.pump(lambda: len(spans()["drey-snapshot"]) >= 2)  # the job's own span


def test_rpcs_and_loops_are_measured(running: Running) -> None:
    def have(service: str, name: str) -> bool:
        return (service, name) in running.collector.metrics

    running.pump(lambda: have("drey-gateway", "drey.rpc.duration"))
    running.pump(lambda: have("drey-snapshot", "drey.rpc.duration"))
    running.pump(lambda: have("drey-monitor", "drey.loop.duration"))


def test_every_service_is_scraped_and_tells_of_no_pv_and_no_key(running: Running) -> None:
    running.take()  # so that all have something to tell
    with running.machine.catalog.open() as file:
        names = [line.partition(",")[0] for line in file][1:]
    secrets = [*running.keys.values(), "drey_app:", "drey_owner:"]
    declared = {metric.family for metric in declared_metrics()}
    seen: set[str] = set()
    for service in ("gateway", "snapshot", "monitor", "restore"):
        lines = (running.stack.folder / f"{service}.log").read_text()
        port = re.findall(r"metrics at port (\d+)", lines)[-1]  # a service may have been restarted

        def scraped(port: str = port) -> dict[str, list[dict[str, str]]]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                text = answer.read().decode()
            assert not [name for name in (*names, *secrets) if name and name in text], text
            return {
                family.name: [sample.labels for sample in family.samples]
                for family in text_string_to_metric_families(text)
            }

        assert "process_resident_memory_bytes" in scraped()
        own = {name for name in scraped() if name.startswith("drey_")}
        assert own <= declared, "a metric has another name than the reference says"
        seen |= own
        if service == "gateway":
            running.pump(lambda: "drey_shard_channels" in scraped())
            shards = {labels["shard"] for labels in scraped()["drey_shard_fresh"]}
            assert shards == {str(number) for number in range(running.stack.options.shards)}
            assert {labels["part"] for labels in scraped()["drey_part_up"]} >= {"nats", "monitor"}
    assert {"drey_rpc_duration_seconds", "drey_loop_duration_seconds", "drey_loop_items"} <= seen


def test_logs_are_json_with_the_trace(running: Running) -> None:
    for name in ("gateway", "snapshot", "monitor", "restore"):
        lines = (running.stack.folder / f"{name}.log").read_text().splitlines()
        assert lines, name
        documents = [json.loads(line) for line in lines if line.startswith("{")]
        assert all({"time", "level", "service", "message"} <= set(d) for d in documents)
