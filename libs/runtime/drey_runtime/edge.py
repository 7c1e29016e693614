"""What comes from the bus or the image: decoded, or refused with `Malformed` and nothing else.

Whoever calls a decoder here throws away what is refused and `note`s it: it is counted, and said
once a minute. No message ends a process.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager

from google.protobuf.message import DecodeError

from drey.events.v1.changes_pb2 import CatalogChanged
from drey.events.v1.directory_pb2 import DirectoryVersion
from drey.events.v1.instances_pb2 import BreakersForced, InstanceReport
from drey.events.v1.values_pb2 import Heartbeat
from drey_core.errors import Malformed
from drey_core.pages import PAGE_LIMIT
from drey_runtime import telemetry

log = logging.getLogger(__name__)

SEQUENCE_LIMIT = 1 << 62
"""Of epochs, sequences and versions: they fit everywhere where they are kept."""
_SAY_EACH_S = 60.0
_said: dict[str, float] = {}


@contextmanager
def parse_guard(what: str) -> Iterator[None]:
    """What a decoder may trip over, as `Malformed` with `what` in it."""
    try:
        yield
    except (DecodeError, ValueError, OverflowError) as error:
        raise Malformed(f"{what} that cannot be read: {error}") from error


def note_error(error: Malformed, source: str) -> None:
    """Count something thrown away, and say so at most once a minute for each `source`."""
    telemetry.refused_messages.add(1, {"subject": source})
    now = time.monotonic()
    if now - _said.get(source, -_SAY_EACH_S) >= _SAY_EACH_S:
        _said[source] = now
        log.error("thrown away from %s: %s (further ones are only counted)", source, error.message)


def require_stamp(what: str, epoch: int, *numbers: int) -> None:
    """Raise `Malformed` where an epoch is none, or a number is out of range."""
    if epoch == 0 or max(epoch, *numbers, 0) > SEQUENCE_LIMIT:
        raise Malformed(f"{what} with an impossible stamp: {(epoch, *numbers)}")


def decode_heartbeat(raw: bytes) -> Heartbeat:
    """A sign of life. Raises `Malformed`."""
    with parse_guard("a heartbeat"):
        beat = Heartbeat.FromString(raw)
    require_stamp("a heartbeat", beat.epoch, beat.sequence, beat.directory_version)
    return beat


def decode_directory_version(raw: bytes) -> DirectoryVersion:
    """Versions of a shard's directory. Raises `Malformed`."""
    with parse_guard("a directory version"):
        version = DirectoryVersion.FromString(raw)
    require_stamp("a directory version", version.epoch, version.version)
    if len(version.pages) != len(version.page_versions):
        raise Malformed("a directory version whose pages and versions differ in number")
    if version.pages and max(version.pages) >= PAGE_LIMIT:
        raise Malformed(f"a directory version that names page {max(version.pages)}")
    return version


def decode_instance(raw: bytes) -> InstanceReport:
    """A sign of life of a process. Raises `Malformed`."""
    with parse_guard("a report of an instance"):
        report = InstanceReport.FromString(raw)
    if not report.service or not report.instance:
        raise Malformed("a report of an instance without a name")
    return report


def decode_breakers(raw: bytes) -> BreakersForced:
    """What administrators say of circuit breakers. Raises `Malformed`."""
    with parse_guard("a list of forced breakers"):
        return BreakersForced.FromString(raw)


def encode_catalog_changed(version: int) -> bytes:
    """The event that says that the catalog has a new version."""
    return CatalogChanged(version=version).SerializeToString()


def decode_catalog_changed(raw: bytes) -> int:
    """The catalog's new version. Raises `Malformed`."""
    with parse_guard("a catalog event"):
        return CatalogChanged.FromString(raw).version
