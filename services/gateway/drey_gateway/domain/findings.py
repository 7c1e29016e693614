"""What somebody should know of the state of the system, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from drey_core.breaker import HELD_OPEN
from drey_core.values import State
from drey_gateway.domain.instances import InstanceBook, IocSummary, Override
from drey_gateway.domain.live import Shard


class Level(IntEnum):
    """Numbers of `drey.system.v1.FindingLevel`."""

    INFO = 1
    WARNING = 2
    ERROR = 3


class Code(IntEnum):
    """Numbers of `drey.system.v1.FindingCode`."""

    PART_DOWN = 1
    SHARD_STALE = 2
    IMAGE_FAILING = 3
    NEVER_CONNECTED = 4
    DISCONNECTED = 5
    UNSUPPORTED_PROTOCOL = 6
    CLOCK_SKEW = 7
    SLOW_CHANNEL_ACCESS = 8
    SERVED_TWICE = 9
    IOC_DOWN = 10
    IOC_SILENT = 11
    BREAKER_OPEN = 12
    BREAKER_FORCED = 13
    CHANNELS_HUNG = 14
    VERSIONS_DIFFER = 15
    QUEUE_FULL = 16
    STANDBY_MISSING = 17


@dataclass(frozen=True, slots=True)
class Subject:
    """What a finding is about: the part, shard, host and so on of that name or number."""

    kind: Literal["part", "shard", "host", "ioc", "pv", "instance"]
    which: str | int


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know, and its remedy. `pvs` names some of those that it is about."""

    code: Code
    level: Level
    subject: Subject
    text: str
    remedy: str
    pvs: tuple[str, ...] = ()


class Since:
    """Since when each finding has been found, each time that somebody looked."""

    def __init__(self) -> None:
        self._since: dict[tuple[Code, Subject], int] = {}

    def times_first_seen(self, findings: Iterable[Finding], now_ns: int) -> list[int]:
        """When each was found first; what is not found is forgotten."""
        keys = [(f.code, f.subject) for f in findings]
        self._since = {key: self._since.get(key, now_ns) for key in keys}
        return [self._since[key] for key in keys]


TOKENS_REFUSED_S = 15
"""From here on one of two services, the one that is ahead, takes the other's tokens for old."""
NAMED = 10
"""PVs that a finding names at most."""
Named = Callable[[int, State], Sequence[str]]
"""Names of some PVs, `NAMED` at most, that have a channel of a shard in a state."""


_REMEDIES = {
    "postgres": "start PostgreSQL, or correct DREY_POSTGRES_URL; watching goes on meanwhile",
    "nats": "start NATS, or correct DREY_NATS_URL; values are stale until then",
    "redis": "start Redis, or correct DREY_REDIS_URL; snapshots by forced read still work",
    "snapshot": "start the snapshot service; without it there are no snapshots and no catalog",
    "monitor": "start a monitor; without one values are not updated",
    "restore": "start the restore service; without it nothing can be put back",
}


def of_parts(parts: Iterable[tuple[str, bool, str]]) -> list[Finding]:
    """Findings about parts: (name, up, detail)."""
    return [
        Finding(
            Code.PART_DOWN,
            Level.ERROR,
            Subject("part", name),
            f"{name} cannot be used: {detail}",
            _REMEDIES.get(name, f"start {name}"),
        )
        for name, up, detail in parts
        if not up
    ]


def of_shards(shards: Sequence[Shard], stale: Mapping[int, str], named: Named) -> list[Finding]:
    """Findings about shards."""
    out: list[Finding] = []
    for number, shard in enumerate(shards):
        if number in stale:
            out.append(_stale_finding(number, stale[number], shard.report.owner))
            continue
        out += _of_owner(number, shard, named)
    slow: dict[str, list[str]] = {}
    for number, shard in enumerate(shards):
        if shard.report.channel_access == "aioca":
            slow.setdefault(_host_of(shard.report.owner), []).append(str(number))
    out += [
        Finding(
            Code.SLOW_CHANNEL_ACCESS,
            Level.WARNING,
            Subject("host", other),
            f"channel access runs on aioca, not on the native table (shards {', '.join(numbers)}):"
            " expect some 40,000 updates a second and process",
            "unless DREY_MONITOR_CHANNEL_ACCESS=aioca was meant, install drey-ca again on"
            f" {other or 'the host of the monitor'} with a C compiler; the monitor's log says what"
            " it lacks",
        )
        for other, numbers in sorted(slow.items())
    ]
    return out


def of_instances(book: InstanceBook, now: int, held: Iterable[Override] = ()) -> list[Finding]:
    """Findings about IOCs, double names and the instances of services; `now` is monotonic."""
    forced = {override.ioc: override for override in held}
    out = [_of_override(override) for override in forced.values()]
    out += [
        finding
        for ioc in book.ioc_summaries(now)
        for finding in _of_ioc(ioc, ioc.address in forced)
    ]
    out += [
        Finding(
            Code.SERVED_TWICE,
            Level.ERROR,
            Subject("pv", double.name),
            f"{double.name} is served by {double.taken}, which is taken, and by {double.ignored}:"
            " which of them another client gets is chance",
            f"take the record out of one of the two IOCs, or let the searches of the monitors reach"
            f" one of them only (DREY_MONITOR_CA_ADDRESS_LIST), then look whether {double.taken} is"
            " the right one",
            (double.name,),
        )
        for double in book.double_names(now)
    ]
    out += [
        Finding(
            Code.VERSIONS_DIFFER,
            Level.WARNING,
            Subject("part", service),
            f"instances of {service} are of versions {', '.join(versions)}",
            "nothing while an upgrade runs; otherwise restart those of the older version",
        )
        for service, versions in book.service_versions(now).items()
        if len(versions) > 1
    ]
    full: dict[str, list[str]] = {}
    for service, instance, queue in book.queue_drops(now):
        full.setdefault(instance, []).append(f"{service}'s {queue.name} ({queue.dropped} so far)")
    out += [
        Finding(
            Code.QUEUE_FULL,
            Level.WARNING,
            Subject("instance", instance),
            f"{instance} had to drop from {', '.join(queues)}: what reads there is too slow",
            "see whether NATS is slow or away; consumers read the image again, nothing is lost",
        )
        for instance, queues in sorted(full.items())
    ]
    return out


def of_standbys(book: InstanceBook, shards: int, now: int) -> list[Finding]:
    """Findings about shards that have fewer warm standbys than were asked for."""
    asked, standbys = book.standbys_asked(now), book.standbys(now)
    out = []
    for shard in range(shards if asked else 0):
        warm = sum(is_warm for _, is_warm in standbys.get(shard, ()))
        coming = len(standbys.get(shard, ())) - warm
        if warm < asked:
            out.append(
                Finding(
                    Code.STANDBY_MISSING,
                    Level.WARNING,
                    Subject("shard", shard),
                    f"shard {shard} has {warm} of {asked} warm standbys"
                    + (f", {coming} more connect its channels" if coming else "")
                    + ": who follows its owner may have to connect them first",
                    "nothing while monitors start or one was just lost; otherwise start one more"
                    " monitor than there are standbys, and see that DREY_MONITOR_MAX_SHARDS leaves"
                    " room in it",
                )
            )
    return out


def _of_override(override: Override) -> Finding:
    says = "open: it is not read nor written" if override.mode == HELD_OPEN else "closed"
    why = f" ({override.reason})" if override.reason else ""
    return Finding(
        Code.BREAKER_FORCED,
        Level.INFO,
        Subject("ioc", override.ioc),
        f"{override.principal} holds the breaker of IOC {override.ioc} {says}{why}",
        f"drey breaker automatic {override.ioc}, when that is over",
    )


def _of_ioc(ioc: IocSummary, forced: bool) -> list[Finding]:
    out, subject = [], Subject("ioc", ioc.address)
    if ioc.is_down:
        out.append(
            Finding(
                Code.IOC_DOWN,
                Level.WARNING,
                subject,
                f"all {ioc.channels} channels of IOC {ioc.address} are disconnected",
                "see whether it runs and the network to it; its channels connect by themselves",
            )
        )
    elif ioc.silent_since_ns:
        out.append(
            Finding(
                Code.IOC_SILENT,
                Level.WARNING,
                subject,
                f"IOC {ioc.address} holds {ioc.connected} connections and answers nothing"
                f" ({ioc.timeouts} time-outs): its values may be old",
                "look at its load and its console; restart it where it hangs",
            )
        )
    if ioc.hung_of_late:
        still = f"{ioc.hung} have none yet" if ioc.hung else "all have one now"
        out.append(
            Finding(
                Code.CHANNELS_HUNG,
                Level.WARNING if ioc.hung else Level.INFO,
                subject,
                f"channels of IOC {ioc.address} were subscribed and no value came, though it"
                f" answers: {ioc.reconnected} were connected anew so far, {still}",
                "look at the event queues of the IOC (casr 2 in its shell), and restart it where it"
                " goes on; the log of the monitor names a channel",
            )
        )
    if ioc.breakers and not forced:
        where = ", ".join(f"{b.service} ({b.instance})" for b in ioc.breakers)
        out.append(
            Finding(
                Code.BREAKER_OPEN,
                Level.WARNING,
                subject,
                f"{where} does not ask IOC {ioc.address} any more: forced reads and writes of its"
                " channels fail at once",
                "see why it did not answer; it is probed, and asked again as soon as it answers",
            )
        )
    return out


def _host_of(process: str) -> str:
    return process.rpartition(":")[0]


def of_clocks(shards: Sequence[Shard], book: InstanceBook, now: int, host: str) -> list[Finding]:
    """One for each host whose clock differs from that of ours, `host`."""
    clocks = [(i.sign.name, i.clock) for i in book.living_instances(now)]
    clocks += [(shard.report.owner, shard.health.clock) for shard in shards]
    told = [(_host_of(process), clock.ahead_ns) for process, clock in clocks if clock.is_told]
    worst = dict(sorted(told, key=lambda each: abs(each[1])))
    return [
        Finding(
            Code.CLOCK_SKEW,
            Level.WARNING,
            Subject("host", other),
            f"the clock of {other or 'a monitor'} is {abs(ahead_ns) / 1e9:.1f} s"
            f" {'ahead of' if ahead_ns > 0 else 'behind'} that of {host}: receive times are wrong"
            f" by so much, and from {TOKENS_REFUSED_S} s on services refuse each other's tokens",
            f"set the clocks of {other or 'its host'} and {host} by NTP",
        )
        for other, ahead_ns in sorted(worst.items())
    ]


def _stale_finding(number: int, why: str, owner: str) -> Finding:
    whose = f" (its owner was {owner})" if owner else ""
    return Finding(
        Code.SHARD_STALE,
        Level.ERROR,
        Subject("shard", number),
        f"{why}: the values of shard {number} are stale{whose}",
        "see whether a monitor runs and reaches NATS; a standby takes over by itself",
    )


def _of_owner(number: int, shard: Shard, named: Named) -> list[Finding]:
    out, report, subject = [], shard.report, Subject("shard", number)
    if report.image_failing:
        out.append(
            Finding(
                Code.IMAGE_FAILING,
                Level.ERROR,
                subject,
                f"the monitor of shard {number} cannot write the image",
                "see whether it reaches Redis, and whether Redis has memory left",
            )
        )
    for count, code, state, what, remedy in (
        (
            report.never_connected,
            Code.NEVER_CONNECTED,
            State.NEVER_CONNECTED,
            "have never connected",
            "correct their addresses in the catalog, or start their IOCs; where those run see"
            " whether searches (UDP) and connections (TCP) from the monitors reach them",
        ),
        (
            report.unsupported,
            Code.UNSUPPORTED_PROTOCOL,
            State.UNSUPPORTED,
            "are of a protocol that is not spoken here",
            "give their PVs the protocol ca, if their IOCs serve that too",
        ),
        (
            report.disconnected,
            Code.DISCONNECTED,
            State.DISCONNECTED,
            "are disconnected",
            "see whether their IOCs run",
        ),
    ):
        if count:
            pvs = tuple(named(number, state))
            some = f", among them of {', '.join(pvs)}" if pvs else ""
            text = f"{count} channels of shard {number} {what}{some}"
            out.append(Finding(code, Level.WARNING, subject, text, remedy, pvs))
    return out
