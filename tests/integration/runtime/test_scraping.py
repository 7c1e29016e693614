"""Metrics are fetched over HTTP by whoever may, and one who stalls holds up nobody."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client.parser import text_string_to_metric_families

from drey_runtime import scraping
from drey_runtime.scraping import MetricsEndpoint
from drey_runtime.settings import CommonSettings, SettingsError
from drey_testing.certificates import Authority


@contextmanager
def serving(**settings: Any) -> Iterator[MetricsEndpoint]:
    endpoint = MetricsEndpoint.open_endpoint(
        CommonSettings(metrics_listen="127.0.0.1:0", **settings)
    )
    provider = MeterProvider(metric_readers=[endpoint.reader], shutdown_on_exit=False)
    meter = provider.get_meter("drey")
    meter.create_counter("drey.loop.items", "1", "x").add(3, {"loop": "fold"})
    meter.create_histogram("drey.rpc.duration", "s", "x").record(0.2, {"method": "M"})
    endpoint.start_listening()
    try:
        yield endpoint
    finally:
        endpoint.stop_listening()
        provider.shutdown()


def fetch(port: int, path: str = "/metrics", tls: ssl.SSLContext | None = None) -> tuple[int, str]:
    client = (
        http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        if tls is None
        else http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=tls)
    )
    try:
        client.request("GET", path)
        answer = client.getresponse()
        return answer.status, answer.read().decode()
    finally:
        client.close()


async def test_metrics_are_told_in_the_text_of_prometheus_and_nothing_else_is() -> None:
    with serving() as endpoint:
        status, text = await asyncio.to_thread(fetch, endpoint.port)
        assert status == 200
        families = {family.name: family for family in text_string_to_metric_families(text)}
        (items,) = families["drey_loop_items"].samples
        assert (items.name, items.labels, items.value) == (
            "drey_loop_items_total",
            {"loop": "fold"},
            3,
        )
        assert "drey_rpc_duration_seconds" in families
        assert "process_resident_memory_bytes" in families
        assert (await asyncio.to_thread(fetch, endpoint.port, "/"))[0] == 404


async def test_with_tls_a_certificate_is_shown_and_asked_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own, scraper = authority.sign("gateway"), authority.sign("prometheus")
    files = {"tls_cert": own.certificate, "tls_key": own.key}
    with serving(**files, tls_client_ca=authority.certificate) as endpoint:
        tls = ssl.create_default_context(cafile=str(authority.certificate))
        with pytest.raises((ssl.SSLError, OSError)):
            await asyncio.to_thread(fetch, endpoint.port, tls=tls)
        tls.load_cert_chain(scraper.certificate, scraper.key)
        assert (await asyncio.to_thread(fetch, endpoint.port, tls=tls))[0] == 200


@pytest.mark.parametrize("secure", [False, True])
async def test_clients_that_say_nothing_hold_up_nobody_and_are_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, secure: bool
) -> None:
    tls, files = None, {}
    if secure:
        authority = Authority(tmp_path)
        own = authority.sign("gateway")
        files = {"tls_cert": own.certificate, "tls_key": own.key}
        tls = ssl.create_default_context(cafile=str(authority.certificate))
    monkeypatch.setattr(scraping, "_CLIENT_S", 600.0)
    monkeypatch.setattr(scraping._Handler, "timeout", 600.0)
    with serving(**files) as endpoint:
        silent = [socket.create_connection(("127.0.0.1", endpoint.port)) for _ in range(7)]
        try:
            assert (await asyncio.to_thread(fetch, endpoint.port, tls=tls))[0] == 200
            silent += [socket.create_connection(("127.0.0.1", endpoint.port)) for _ in range(8)]
            # beyond the most they are let go at once, while the first ones are still waited for
            silent[-1].settimeout(60)
            assert silent[-1].recv(1) == b""
        finally:
            for each in silent:
                each.close()


@pytest.mark.parametrize(
    ("listen", "said"),
    [("0.0.0.0:0", "DREY_TLS_CERT"), ("127.0.0.1:99999", "cannot be had")],
)
def test_an_address_that_is_not_safe_or_not_there_is_refused(listen: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        MetricsEndpoint.open_endpoint(CommonSettings(metrics_listen=listen))


def test_an_address_that_is_taken_is_refused_by_name() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=f"DREY_METRICS_LISTEN=127.0.0.1:{port}"):
            MetricsEndpoint.open_endpoint(CommonSettings(metrics_listen=f"127.0.0.1:{port}"))
