"""Two gateways behind one address, which takes turns: either goes on with what the other began."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from drey_stack import Envoy, HttpOptions, envoy_config
from drey_stack.envoy_config import Upstream
from drey_stack.ports import LOOPBACK
from drey_testing.fixtures_gateway import (
    GatewayRig,
    catalog_pages,
    eventually,
    every_channel,
    name_of,
)
from tests.http_calls import HttpAnswer, call_http, open_call
from tests.integration.gateway.conftest import admin_key, postgres, rig, shards, url

__all__ = ["admin_key", "postgres", "rig", "shards", "url"]

PVS = 6


@pytest.fixture
async def web(
    rig: GatewayRig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """Its address."""
    publisher = rig.publisher()
    await publisher.beat()
    await publisher.set_catalog(catalog_pages(PVS))
    await publisher.publish(every_channel(PVS, 0.5))
    publisher.start()
    first, second = await rig.ready_gateway(), await rig.ready_gateway()
    one_gateway = envoy_config._cluster_config

    def both(upstream: Upstream) -> dict[str, Any]:
        cluster = one_gateway(upstream)
        (locality,) = cluster["load_assignment"]["endpoints"]
        address = {"address": LOOPBACK, "port_value": second.port}
        other = {"endpoint": {"address": {"socket_address": address}}}
        locality["lb_endpoints"].append(other)
        return cluster

    monkeypatch.setattr(envoy_config, "_cluster_config", both)
    async with Envoy(tmp_path / "envoy", Upstream(LOOPBACK, first.port), HttpOptions()) as envoy:
        yield envoy.url
    await publisher.stop()


@contextmanager
def _stream(web: str, key: str, path: str, body: Any) -> Iterator[Iterator[dict[str, Any]]]:
    headers = {"authorization": f"Bearer {key}"}
    with open_call(web, "POST", path, json.dumps(body).encode(), **headers) as response:
        assert response.status == 200, response.read()
        yield map(json.loads, response)


def _selected(*pvs: int) -> dict[str, Any]:
    return {"selector": {"names": [name_of(pv) for pv in pvs]}}


async def test_a_watch_goes_on_wherever_it_comes_to(web: str, admin_key: str) -> None:
    def resume_often() -> None:
        body: dict[str, Any] = {"spec": {"selector": {"all": True}}}
        for attempt in range(6):
            with _stream(web, admin_key, "/v1/values:watch", body) as messages:
                for message in messages:
                    assert "resyncRequired" not in message, message
                    if begin := message.get("baselineBegin"):
                        assert begin["keepsState"] == (attempt > 0)
                    if end := message.get("baselineEnd"):
                        body["token"] = end["token"]
                        break

    await asyncio.to_thread(resume_often)


async def test_a_session_is_changed_from_wherever_a_change_comes_to(
    web: str, admin_key: str
) -> None:
    """And it is told where a session has ended, wherever that was."""

    def change_often() -> set[str]:
        gateways = set()
        for _ in range(4):
            body = {"subscriptions": [{"name": "a", "spec": _selected(1)}]}
            with _stream(web, admin_key, "/v1/sessions:open", body) as messages:
                session = next(messages)["opened"]["session"]
                gateways.add(session.partition(".")[0])
                for change in (1, 2, 2, 3):  # one of them comes twice
                    joins = _selected(change + 1)["selector"]
                    asked = {"subscription": "a", "change": change, "add": joins}
                    answer = _modify(web, admin_key, session, asked)
                    assert answer.status == 200, answer.body
                acked = (m["ack"] for m in messages if "ack" in m)
                for number in (1, 2, 3):
                    assert next(acked) == {"change": str(number)}
            ended.append(session)
        return gateways

    ended: list[str] = []
    gateways = await asyncio.to_thread(change_often)
    assert len(gateways) == 2, "both were asked"
    asked = {"subscription": "a", "change": 9, "end": {}}

    async def both_know() -> bool:
        answers = [
            await asyncio.to_thread(_modify, web, admin_key, session, asked)
            for session in ended
            for _ in range(2)
        ]
        return {(answer.status, answer.reason) for answer in answers} == {(404, "NOT_FOUND")}

    await eventually(both_know, "the sessions are known to have ended")


def _modify(web: str, key: str, session: str, asked: Any) -> HttpAnswer:
    return call_http(web, "POST", f"/v1/sessions/{session}:modify", asked, key=key)


async def test_pages_and_repeats_do_not_mind_who_answers(web: str, admin_key: str) -> None:
    def make_and_list() -> None:
        names = {f"key {n}" for n in range(5)}
        for name in names:
            body = {"name": name, "grants": [{"role": "viewer"}], "requestId": str(uuid4())}
            made = [call_http(web, "POST", "/v1/keys", body, key=admin_key) for _ in range(4)]
            assert {answer.status for answer in made} == {200}, made
            assert len({answer.json["key"]["id"] for answer in made}) == 1
        listed, token = [], ""
        while True:
            path = f"/v1/keys?page_size=1&page_token={token}"
            page = call_http(web, "GET", path, key=admin_key).json
            listed += [each["name"] for each in page["keys"]]
            token = page["nextPageToken"]
            if not token:
                break
        assert len(listed) == len(set(listed))
        assert names < set(listed)

    await asyncio.to_thread(make_and_list)
