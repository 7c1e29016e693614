"""What the summary of the system holds, from messages of the bus and to those of the contract."""

from __future__ import annotations

from collections.abc import Iterable

from google.protobuf.duration_pb2 import Duration

from drey.events.v1.instances_pb2 import BreakersForced, ForcedBreaker, InstanceReport
from drey.system.v1 import system_service_pb2 as pb
from drey_core.iocs import DoubleName, IocState
from drey_gateway.domain.instances import (
    Instance,
    InstanceSign,
    IocSummary,
    OpenBreaker,
    Override,
    Queue,
)
from drey_runtime.mapping.common import actor, timestamp_message


def instance_sign(report: InstanceReport) -> InstanceSign:
    """A sign of life of a process."""
    return InstanceSign(
        service=report.service,
        name=report.instance,
        version=report.version,
        started_ns=report.started_ns,
        serving=report.serving,
        iocs=[
            IocState(
                address=ioc.address,
                channels=ioc.channels,
                connected=ioc.connected,
                timeouts=ioc.timeouts,
                echo_ns=ioc.echo_ns,
                silent_since_ns=ioc.silent_since_ns,
                breaker=ioc.breaker,
                breaker_since_ns=ioc.breaker_since_ns,
                next_probe_ns=ioc.next_probe_ns,
                reconnected=ioc.reconnected,
                hung=ioc.hung,
            )
            for ioc in report.iocs
        ],
        ioc_count=report.ioc_count,
        queues=[Queue(q.name, q.depth, q.bound, q.dropped) for q in report.queues],
        doubles=[DoubleName(d.name, d.taken, d.ignored, d.since_ns) for d in report.served_twice],
        standbys={shard: shard in set(report.prepared) for shard in report.standby_shards},
        standbys_asked=report.warm_standbys,
        sent_ns=report.time_ns,
    )


def service_instance(instance: Instance, now: int) -> pb.ServiceInstance:
    """A process; `now` is of the monotonic clock by which it was heard of."""
    sign = instance.sign
    return pb.ServiceInstance(
        service=sign.service,
        name=sign.name,
        version=sign.version,
        start_time=timestamp_message(sign.started_ns),
        serving=sign.serving,
        age=_to_duration(max(now - instance.heard_at, 1)),
        queues=[
            pb.QueueStatus(name=q.name, depth=q.depth, bound=q.bound, dropped=q.dropped)
            for q in sign.queues
        ],
    )


def ioc_status(ioc: IocSummary, forced: Override | None) -> pb.IocStatus:
    """An IOC, and what an administrator says of its breakers."""
    return pb.IocStatus(
        address=ioc.address,
        channels=ioc.channels,
        connected=ioc.connected,
        timeouts=ioc.timeouts,
        echo=_to_duration(ioc.echo_ns),
        silent_since=timestamp_message(ioc.silent_since_ns),
        reconnected=ioc.reconnected,
        hung=ioc.hung,
        breakers=[_breaker_status(breaker) for breaker in ioc.breakers],
        forced=None if forced is None else breaker_override(forced),
    )


def breaker_override(override: Override) -> pb.BreakerOverride:
    """What an administrator says of a breaker."""
    return pb.BreakerOverride(
        ioc=override.ioc,
        mode=override.mode,  # type: ignore[arg-type]
        reason=override.reason,
        actor=actor(override.principal, override.roles),
        update_time=timestamp_message(override.time_ns),
    )


def breakers_forced(held: Iterable[Override], changed_ns: int) -> BreakersForced:
    """The whole list, as it is told on the bus."""
    return BreakersForced(
        changed_ns=changed_ns,
        breakers=[
            ForcedBreaker(
                address=each.ioc,
                mode=each.mode,  # type: ignore[arg-type]
                reason=each.reason,
                principal=each.principal,
                time_ns=each.time_ns,
            )
            for each in held
        ],
    )


def _breaker_status(breaker: OpenBreaker) -> pb.BreakerStatus:
    return pb.BreakerStatus(
        instance=breaker.instance,
        service=breaker.service,
        state=breaker.state.breaker,  # type: ignore[arg-type]
        since=timestamp_message(breaker.state.breaker_since_ns),
        next_probe=timestamp_message(breaker.state.next_probe_ns),
    )


def _to_duration(ns: int) -> Duration | None:
    if not ns:
        return None
    out = Duration()
    out.FromNanoseconds(ns)
    return out
