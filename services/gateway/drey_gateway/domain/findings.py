"""What somebody should know of the state of the system, and what to do about it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum

from drey_gateway.domain.live import Shard


class Level(IntEnum):
    """Numbers of `drey.system.v1.FindingLevel`."""

    INFO = 1
    WARNING = 2
    ERROR = 3


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing to know, and its remedy."""

    level: Level
    text: str
    remedy: str


_REMEDIES = {
    "postgres": "start PostgreSQL, or correct DREY_POSTGRES_URL; watching goes on meanwhile",
    "nats": "start NATS, or correct DREY_NATS_URL; values are stale until then",
    "redis": "start Redis, or correct DREY_REDIS_URL; snapshots by forced read still work",
    "snapshot": "start the snapshot service; without it there are no snapshots and no catalogue",
    "monitor": "start a monitor; without one values are not updated",
    "restore": "start the restore service; without it nothing can be put back",
}


def of_parts(parts: Iterable[tuple[str, bool, str]]) -> list[Finding]:
    """Findings about parts: (name, up, detail)."""
    return [
        Finding(
            Level.ERROR, f"{name} does not answer: {detail}", _REMEDIES.get(name, f"start {name}")
        )
        for name, up, detail in parts
        if not up
    ]


def of_shards(
    shards: Sequence[Shard], stale: Mapping[int, str], now: int, host: str
) -> list[Finding]:
    """Findings about shards; `now` is of the monotonic clock, `host` is this one."""
    out: list[Finding] = []
    for number, shard in enumerate(shards):
        if number in stale:
            out.append(_stale(number, shard, stale[number], now))
            continue
        out += _of_owner(number, shard)
    out += _of_clocks(shards, host)
    slow = [str(n) for n, s in enumerate(shards) if s.report.channel_access == "aioca"]
    if slow:
        out.append(
            Finding(
                Level.WARNING,
                f"channel access runs on aioca, not on the native table (shards {', '.join(slow)}):"
                " expect some 40,000 updates a second and process",
                "unless DREY_MONITOR_CHANNEL_ACCESS=aioca was meant, install drey-ca again on the"
                " monitor's host with a C compiler; the monitor's log says what it lacks",
            )
        )
    return out


def _of_clocks(shards: Sequence[Shard], host: str) -> list[Finding]:
    """One for each host whose clock differs from ours."""
    skews = {s.report.owner.rpartition(":")[0]: s.health.skew_ns for s in shards if s.health.skewed}
    return [
        Finding(
            Level.WARNING,
            f"the clock of {other or 'a monitor'} is {abs(skew) / 1e9:.1f} s"
            f" {'ahead of' if skew > 0 else 'behind'} that of {host}: receive times are wrong by so"
            " much, and from 5 s on the services refuse each other's tokens",
            f"set the clocks of {other or 'its host'} and {host} by NTP",
        )
        for other, skew in sorted(skews.items())
    ]


def _stale(number: int, shard: Shard, why: str, now: int) -> Finding:
    age = shard.health.age_ms(now)
    since = f" for {age / 1000:.0f} s" if age >= 1000 else ""
    return Finding(
        Level.ERROR,
        f"{why}{since}: the values of shard {number} are stale",
        "see whether a monitor runs and reaches NATS; a standby takes over by itself",
    )


def _of_owner(number: int, shard: Shard) -> list[Finding]:
    out = []
    found = shard.report
    if found.image_failing:
        out.append(
            Finding(
                Level.ERROR,
                f"the monitor of shard {number} cannot write the image",
                "see whether it reaches Redis, and whether Redis has memory left",
            )
        )
    if found.never_connected:
        out.append(
            Finding(
                Level.WARNING,
                f"{found.never_connected} channels of shard {number} have never connected",
                "correct their addresses in the catalogue, or start their IOCs",
            )
        )
    if found.unsupported:
        out.append(
            Finding(
                Level.WARNING,
                f"{found.unsupported} channels of shard {number} are of a protocol that is not"
                " spoken here",
                "give their PVs the protocol ca, if their IOCs serve that too",
            )
        )
    if found.disconnected:
        out.append(
            Finding(
                Level.WARNING,
                f"{found.disconnected} channels of shard {number} are disconnected",
                "see whether their IOCs run",
            )
        )
    return out
