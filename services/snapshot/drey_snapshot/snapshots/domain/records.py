"""What is known of a snapshot beside its values."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Source(IntEnum):
    """Where values come from; the numbers of `drey.snapshot.v1.SnapshotSource`."""

    UNSPECIFIED = 0
    IMAGE = 1
    READ = 2
    IMAGE_THEN_READ = 3
    IMPORT = 4
    COMPOSITE = 5

    @property
    def text(self) -> str:
        """Its name for people: `image-then-read`."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True)
class StateCounts:
    """Channels by state, as `drey.snapshot.v1.StateCounts`."""

    channels: int
    connected: int
    disconnected: int
    never_connected: int
    in_alarm: int
    source_time_suspect: int
    by_monitor: int | None = None
    unsupported: int = 0


@dataclass(frozen=True, slots=True)
class Skew:
    """How far apart in time the values are, nanoseconds; as `drey.snapshot.v1.Skew`."""

    oldest_source_time_ns: int = 0
    newest_source_time_ns: int = 0
    median_age_ns: int = 0
    p99_age_ns: int = 0


@dataclass(frozen=True, slots=True)
class ShardStamp:
    """State of a shard's monitor as a snapshot saw it."""

    shard: int
    epoch: int
    sequence: int
    age_ns: int


@dataclass(frozen=True, slots=True)
class Facts:
    """The immutable part of a snapshot's record."""

    id: str
    job_id: str
    time_ns: int
    digest: bytes
    directory_hash: bytes
    catalog_version: int
    source: int
    principal: str
    role: str
    scope: str
    pv_count: int
    counts: StateCounts
    skew: Skew
    shards: tuple[ShardStamp, ...]
    duration_ns: int
    selector_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class GoldenMark:
    """What a snapshot is golden for, and who said so; as `drey.snapshot.v1.GoldenMark`.

    `principal` is empty, and the time 0, where it was set before marks were kept.
    """

    scope: str
    label: str
    principal: str
    roles: str
    reason: str
    mark_time_ns: int


@dataclass(frozen=True, slots=True)
class Labels:
    """The part that people may change; `version` is its etag, `delete_time_ns` 0 while it lives."""

    title: str = ""
    comment: str = ""
    labels: tuple[str, ...] = ()
    version: int = 1
    delete_time_ns: int = 0

    @property
    def etag(self) -> str:
        """Changes with every change of these."""
        return str(self.version)


@dataclass(frozen=True, slots=True)
class Record:
    """A snapshot without its values; `no` is its short number in the database.

    `chosen` is the stored page of its selector; None in lists, and where none was kept.
    """

    no: int
    facts: Facts
    labels: Labels
    chosen: bytes | None = None
    golden: tuple[GoldenMark, ...] = ()
