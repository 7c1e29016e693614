"""The messages of watches and sessions, but for those of values (`domain.wire`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TypeVar

from drey.common.v1 import value_pb2
from drey.monitor.v1 import monitor_service_pb2 as pb
from drey.monitor.v1 import watch_pb2
from drey_core.directory import Directory
from drey_core.errors import DreyError
from drey_core.selector import Link
from drey_core.values import I8
from drey_core.wire_values import wrap_payload
from drey_gateway import mapping
from drey_gateway.domain.wanted import SubscriptionChange
from drey_gateway.domain.wire import InstantValues
from drey_runtime.clock import now_ns
from drey_runtime.stalls import current_outgoing

_ROWS = 500
_NAMES = 2000
_NAME, _WATCH = 1, 3
_T = TypeVar("_T")
_DELETED = watch_pb2.LEAVE_REASON_DELETED
_NOT_SELECTED = watch_pb2.LEAVE_REASON_NOT_SELECTED


def encode_part(**part: object) -> bytes:
    """A `WatchPvsResponse`."""
    raw: bytes = pb.WatchPvsResponse(**part).SerializeToString()  # type: ignore[arg-type]
    return raw


def freshness_change(
    code: value_pb2.Freshness.ValueType, reason: str, *, numbers: I8 | None
) -> watch_pb2.FreshnessChange:
    """`numbers` None: all that are watched."""
    return watch_pb2.FreshnessChange(
        freshness=code,
        all=numbers is None,
        pv_numbers=[] if numbers is None else numbers.tolist(),
        reason=reason,
    )


def left_messages(
    numbers: I8,
    before: Directory,
    now: Directory,
    reason: watch_pb2.LeaveReason.ValueType | None = None,
) -> Iterator[bytes]:
    """`reason`: None for "deleted" or "not selected", whichever it is."""
    for start in range(0, len(numbers), _ROWS):
        chosen = numbers[start : start + _ROWS]
        here = now.rows_of(chosen) >= 0
        rows = before.rows_of(chosen)
        yield encode_part(
            left=watch_pb2.PvsLeft(
                pvs=[
                    watch_pb2.PvLeft(
                        number=number,
                        name=before.names[row] if row >= 0 else "",
                        reason=reason or (_NOT_SELECTED if known_number else _DELETED),
                    )
                    for number, row, known_number in zip(
                        chosen.tolist(), rows.tolist(), here.tolist(), strict=True
                    )
                ]
            )
        )


def pace_messages(messages: Iterator[bytes], taken: InstantValues) -> Iterator[bytes]:
    """`messages` made of `taken`, which counts as waiting for the client until the last has left.

    Rows are shared with others as long as they are the latest; of a client that does not read they
    soon are not.
    """
    answers, first, second = current_outgoing(), next(messages, None), next(messages, None)
    if first is not None:
        yield first
    if second is None:
        return
    if answers is not None:
        answers.held_bytes = taken.bytes_size()
    try:
        yield from chain((second,), messages)
    finally:
        if answers is not None:
            answers.held_bytes = 0


def batch_items(items: Sequence[_T]) -> Iterator[Sequence[_T]]:
    """Names and links, as many at a time as fit into one message."""
    return (items[start : start + _NAMES] for start in range(0, len(items), _NAMES))


class NamesTold:
    """What a client was told of its names."""

    def __init__(self) -> None:
        self._links: dict[str, list[watch_pb2.NameLink]] = {}
        self.not_found: frozenset[str] = frozenset()

    def tell_news(
        self,
        rows: I8,
        missing: Sequence[str],
        named: Mapping[str, Sequence[Link]],
        directory: Directory,
    ) -> Iterator[watch_pb2.NamesUnderstood]:
        """What is new of what the client's names mean."""
        links: dict[str, list[watch_pb2.NameLink]] = {}
        for link in mapping.name_links(named, directory):
            links.setdefault(link.asked, []).append(link)
        # a name that was waited for, and is a PV's own
        for name in self.not_found.difference(missing, links):
            links[name] = [
                watch_pb2.NameLink(asked=name, number=int(directory.pv_number[row]), name=name)
                for row in rows.tolist()
                if directory.names[row] == name
            ]
        new = [
            link
            for asked, name_links in links.items()
            if name_links != self._links.get(asked)
            for link in name_links
        ]
        lost = [name for name in missing if name not in self.not_found]
        self._links, self.not_found = links, frozenset(missing)
        for part in batch_items(new):
            yield watch_pb2.NamesUnderstood(links=part)
        for gone in batch_items(lost):
            yield watch_pb2.NamesUnderstood(not_found=gone)


def of_subscription(name: str, message: bytes) -> bytes:
    """An `OpenWatchResponse` with an encoded `WatchPvsResponse`."""
    return wrap_payload(_NAME, name.encode()) + wrap_payload(_WATCH, message)


def ack_message(change: SubscriptionChange, error: DreyError | None = None) -> bytes:
    """`error`: why the change is refused."""
    ack = pb.ChangeAck(change=change.number)
    if error is not None:
        ack.error.reason = int(error.reason)  # type: ignore[assignment]
        ack.error.field, ack.error.message = error.field, error.message
    response = pb.OpenWatchResponse(subscription=change.subscription, ack=ack)
    raw: bytes = response.SerializeToString()
    return raw


def opened_message(session_id: str) -> bytes:
    """Begins a session."""
    raw: bytes = pb.OpenWatchResponse(
        opened=pb.SessionOpened(session=session_id)
    ).SerializeToString()
    return raw


def idle_message(*, stalled: bool) -> bytes:
    """The sign of life of a session that watches nothing."""
    checkpoint = watch_pb2.Checkpoint(time_ns=now_ns(), stalled=stalled)
    watch = pb.WatchPvsResponse(checkpoint=checkpoint)
    raw: bytes = pb.OpenWatchResponse(watch=watch).SerializeToString()
    return raw
