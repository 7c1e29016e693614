"""Metrics for who fetches them: Prometheus' text over HTTP, at an address of its own.

A thread serves it, and one more for each client: writing all metrics down takes some ten
milliseconds, for which no call is to wait.
"""

from __future__ import annotations

import logging
import socket
import ssl
import threading
from http.server import HTTPServer
from socketserver import ThreadingMixIn
from typing import Any, Self

from opentelemetry.exporter.prometheus import PrometheusMetricReader
from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import MetricsHandler

from drey_runtime.settings import CommonSettings, SettingsError, require_safe_listen

log = logging.getLogger(__name__)

_CLIENT_S = 10.0
"""In which a client has to shake hands, ask, and take what it is told."""
_MOST_CLIENTS = 8
_VARIABLE = "DREY_METRICS_LISTEN"


class _Handler(MetricsHandler):
    timeout = _CLIENT_S
    server: _Server

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != "/metrics":
            self.send_error(404, "metrics are at /metrics")
            return
        # the reader hands what it collected to whoever collects first
        with self.server.collecting:
            super().do_GET()


class _Server(ThreadingMixIn, HTTPServer):
    daemon_threads = True

    def __init__(
        self, address: tuple[str, int], handler: type[_Handler], tls: ssl.SSLContext | None
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.collecting = threading.Lock()
        self._tls, self._places = tls, threading.BoundedSemaphore(_MOST_CLIENTS)
        super().__init__(address, handler)

    def server_bind(self) -> None:
        # without the name of the host, for which HTTPServer asks a name server
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "drey", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def finish_request(self, request: Any, client_address: Any) -> None:
        # the hands are shaken here: one that does not shake them holds up nobody else
        request.settimeout(_CLIENT_S)
        if self._tls is None:
            super().finish_request(request, client_address)
            return
        with self._tls.wrap_socket(request, server_side=True) as secure:
            super().finish_request(secure, client_address)

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("metrics were not told to %s", client_address, exc_info=True)


class MetricsEndpoint:
    """The address, and the reader that belongs among the providers of this process."""

    def __init__(self, server: _Server, reader: PrometheusMetricReader) -> None:
        self._server, self.reader = server, reader
        self._thread = threading.Thread(
            target=server.serve_forever,
            kwargs={"poll_interval": 0.1},  # how long it takes to stop
            name="metrics endpoint",
            daemon=True,
        )

    @classmethod
    def open_endpoint(cls, settings: CommonSettings) -> Self:
        """Bind it. Raises `SettingsError` where it is not safe, or cannot be had."""
        listen = settings.metrics_listen
        require_safe_listen(settings, listen, _VARIABLE)
        registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=registry)
        handler = type("_BoundHandler", (_Handler,), {"registry": registry})
        host, _, port = listen.rpartition(":")
        try:
            server = _Server((host.strip("[]"), int(port)), handler, _server_tls(settings))
        except (OSError, OverflowError) as error:
            raise SettingsError(
                f"{_VARIABLE}={listen} cannot be had: {error}. Give each service an address that"
                " is free, or leave it empty"
            ) from error
        return cls(server, PrometheusMetricReader(scope_info_enabled=False, registry=registry))

    @property
    def port(self) -> int:
        """That it was given, where 0 was asked for."""
        return self._server.server_port

    def start_listening(self) -> None:
        """Serve, until `stop`."""
        self._thread.start()
        log.info("metrics at port %d", self.port)

    def stop_listening(self) -> None:
        """Serve nobody any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _server_tls(settings: CommonSettings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    if settings.tls_client_ca is not None:
        context.load_verify_locations(settings.tls_client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
