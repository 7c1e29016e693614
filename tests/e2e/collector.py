"""A collector of traces and metrics in the test's own process, speaking OTLP over gRPC."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.metrics.v1 import (
    metrics_service_pb2,
    metrics_service_pb2_grpc,
)
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

THREADS = "collector"
"""How the names of its threads begin; they are made when they are needed."""


@dataclass(frozen=True)
class Seen:
    """One span."""

    service: str
    name: str
    trace_id: str
    parent: str


@dataclass
class Collector:
    """What came so far."""

    endpoint: str = ""
    spans: list[Seen] = field(default_factory=list)
    metrics: set[tuple[str, str]] = field(default_factory=set)
    raw: list[str] = field(default_factory=list)
    """All that came, as text."""


def _service(resource: Any) -> str:
    for attribute in resource.attributes:
        if attribute.key == "service.name":
            return str(attribute.value.string_value)
    return ""


class _Traces(trace_service_pb2_grpc.TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:
        self._collector.raw.append(str(request))
        for group in request.resource_spans:
            service = _service(group.resource)
            for scope in group.scope_spans:
                for span in scope.spans:
                    self._collector.spans.append(
                        Seen(service, span.name, span.trace_id.hex(), span.parent_span_id.hex())
                    )
        return trace_service_pb2.ExportTraceServiceResponse()


class _Metrics(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:
        self._collector.raw.append(str(request))
        for group in request.resource_metrics:
            service = _service(group.resource)
            for scope in group.scope_metrics:
                self._collector.metrics |= {(service, metric.name) for metric in scope.metrics}
        return metrics_service_pb2.ExportMetricsServiceResponse()


@contextmanager
def collecting() -> Iterator[Collector]:
    """Run a collector on a free loopback port."""
    collector = Collector()
    server = grpc.server(futures.ThreadPoolExecutor(2, thread_name_prefix=THREADS))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(_Traces(collector), server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(_Metrics(collector), server)
    port = server.add_insecure_port("127.0.0.1:0")
    collector.endpoint = f"http://127.0.0.1:{port}"
    server.start()
    try:
        yield collector
    finally:
        server.stop(None)
