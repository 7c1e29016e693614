"""Traces and metrics by OpenTelemetry. Exporters are off unless an endpoint is set.

Trace context travels in gRPC metadata and NATS headers as W3C `traceparent`. Spans are made in
any case, so that logs carry trace ids; they leave the process only where an endpoint is set.
No label tells of a PV, a key or a person: their number has no bound, and whoever reads metrics
needs no permission.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from opentelemetry import context, metrics, propagate, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import Span, SpanKind

tracer = trace.get_tracer("drey")
meter = metrics.get_meter("drey")

_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
"""The library's own are for milliseconds."""
rpc_seconds = meter.create_histogram(
    "drey.rpc.duration",
    "s",
    "Duration of RPCs by method and code",
    explicit_bucket_boundaries_advisory=_BOUNDS_S,
)
loop_seconds = meter.create_histogram(
    "drey.loop.duration",
    "s",
    "Duration of one turn of a loop, by loop",
    explicit_bucket_boundaries_advisory=_BOUNDS_S,
)
refused_messages = meter.create_counter(
    "drey.messages.refused", "1", "What came from bus or image and was thrown away, by subject"
)
loop_items = meter.create_counter("drey.loop.items", "1", "What loops worked off, by loop")


def configure_telemetry(service: str, version: str, endpoint: str, *readers: MetricReader) -> None:
    """Set the providers of this process; `endpoint` empty sends nothing. `readers` get metrics."""
    resource = Resource.create({"service.name": f"drey-{service}", "service.version": version})
    provider = TracerProvider(resource=resource)
    metric_readers = [*readers]
    if endpoint:
        # Imported here: a process that sends nothing starts without them, and sooner.
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint)))
        metric_readers.append(PeriodicExportingMetricReader(OTLPMetricExporter(endpoint=endpoint)))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider(resource=resource, metric_readers=metric_readers))


def shutdown_telemetry() -> None:
    """Send what is left; blocks at most a few seconds."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        provider.shutdown()
    meters = metrics.get_meter_provider()
    if isinstance(meters, MeterProvider):
        meters.shutdown()


def trace_headers() -> dict[str, str]:
    """The current trace context as headers, for NATS and gRPC."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier


@contextmanager
def start_span(
    name: str, carrier: Mapping[str, str] | None = None, kind: SpanKind = SpanKind.INTERNAL
) -> Iterator[Span]:
    """A span, under the context in `carrier` where one is given, and current inside."""
    parent = propagate.extract(carrier) if carrier else None
    token = context.attach(parent) if parent is not None else None
    try:
        with tracer.start_as_current_span(name, kind=kind) as current:
            yield current
    finally:
        if token is not None:
            context.detach(token)


def trace_id() -> str:
    """The current trace, 32 hexadecimal digits; empty when there is none."""
    span_context = trace.get_current_span().get_span_context()
    return f"{span_context.trace_id:032x}" if span_context.is_valid else ""


def metadata_carrier(metadata: Iterable[tuple[str, str | bytes]] | None) -> dict[str, str]:
    """gRPC metadata as a carrier."""
    return {k: v for k, v in metadata or () if isinstance(v, str)}
