# ruff: noqa: T201
"""Follows PVs for as long as you like, through lost connections and gateways that stand still.

    python watch.py SERVER KEY PATTERN...

The state of the client is a dictionary: PV number to row. A baseline fills it, each difference
replaces values in it, and the last token names the instant that it stands for.
"""

import json
import sys
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from drey.common.v1 import selector_pb2, value_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc, watch_pb2

RETRY_S = 0.5
SILENCE_S = 5.0
FINAL = ("UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "NOT_FOUND", "UNIMPLEMENTED")
FLAT = ("uint8_array", "string_value", "raw_string_value")


def text(value: value_pb2.Value) -> str:
    """A value, or what is known instead of it. Zero, missing and disconnected are three things."""
    kind = value.WhichOneof("data")
    if value.state == value_pb2.CONNECTION_STATE_NEVER_CONNECTED:
        return "never connected"
    if kind is None:
        return "no value"
    shown = shown_data(kind, elements(value, kind))
    if value.state == value_pb2.CONNECTION_STATE_DISCONNECTED:
        return f"disconnected, was {shown}"
    return f"{shown} (stale)" if value.freshness == value_pb2.FRESHNESS_STALE else shown


def elements(value: value_pb2.Value, kind: str) -> Any:
    """The data of a value: a scalar as it is, an array as a sequence."""
    data = getattr(value, kind)
    if kind == "string_array":
        return data.elements or data.raw_elements
    return data.elements if kind.endswith("_array") and kind != "uint8_array" else data


def shown_data(kind: str, data: Any) -> str:
    """Data of any type."""
    if kind == "unsent":
        return f"cannot be sent: {data.message}"
    if kind == "enum_value":
        return f"{data.label} ({data.index})" if data.label else f"#{data.index}"
    if not kind.endswith("_array"):
        return shown_scalar(data)
    if len(data) <= 8:
        return f"[{', '.join(map(shown_scalar, data))}]"
    first = ", ".join(map(shown_scalar, data[:3]))
    return f"[{first}, … {len(data)} in all, the last {shown_scalar(data[-1])}]"


def shown_scalar(data: Any) -> str:
    """A number, a truth or a string; bytes that are not UTF-8 as escapes."""
    if isinstance(data, bytes):
        data = data.decode(errors="backslashreplace")
    return json.dumps(data, ensure_ascii=False)


def is_whole(value: value_pb2.Value) -> bool:
    """Whether all parts of a large array or string are here; those of strings count bytes."""
    kind = value.WhichOneof("data")
    if kind is None or not value.HasField("part"):
        return True
    data = elements(value, kind)
    return len(data.encode() if isinstance(data, str) else data) == value.part.total_elements


def append_part(held: value_pb2.Value, more: value_pb2.Value) -> None:
    """Put the next part of a large value to what is held of it."""
    kind = more.WhichOneof("data")
    if kind in FLAT:
        setattr(held, kind, getattr(held, kind) + getattr(more, kind))
    elif kind is not None:
        getattr(held, kind).MergeFrom(getattr(more, kind))


def roles_of(row: value_pb2.PvRow) -> dict[str, value_pb2.Value]:
    """The values of a row, by what they are of the PV."""
    return {role: getattr(row, role) for role in ("setpoint", "readback") if row.HasField(role)}


def reason_of(error: grpc.RpcError) -> str:
    """The reason of a refusal: branch on it, never on the text."""
    for key, raw in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            info = error_details_pb2.ErrorInfo()
            if any(detail.Unpack(info) for detail in status_pb2.Status.FromString(raw).details):
                return info.reason
    return ""


class Watch:
    """What this client holds, and where it stands."""

    def __init__(self, patterns: list[str]) -> None:
        self.spec = watch_pb2.WatchSpec(selector=selector_pb2.Selector(globs=patterns))
        self.rows: dict[int, value_pb2.PvRow] = {}
        self.token = ""

    def request(self) -> monitor_service_pb2.WatchPvsRequest:
        """The first time everything, afterwards what the token lacks."""
        return monitor_service_pb2.WatchPvsRequest(spec=self.spec, token=self.token)

    def take(self, message: monitor_service_pb2.WatchPvsResponse) -> None:
        """Fold one message into the state."""
        match message.WhichOneof("part"):
            case "baseline_begin":
                if not message.baseline_begin.keeps_state:
                    self.rows.clear()
            case "baseline":
                self.replace(message.baseline.rows)
            case "baseline_end":
                self.token = message.baseline_end.token
                print(f"holding {len(self.rows)} PVs")
            case "diff":
                self.replace(message.diff.rows)
            case "checkpoint":
                self.token = message.checkpoint.token
            case "freshness":
                self.freshen(message.freshness)
            case "left":
                for pv in message.left.pvs:
                    self.rows.pop(pv.number, None)
            case "resync_required":
                print("everything comes again:", message.resync_required.reason)

    def replace(self, rows: Iterable[value_pb2.PvRow]) -> None:
        """A row holds channels that changed, or the next part of a large value; the others stay."""
        for row in rows:
            held = self.rows.setdefault(row.number, value_pb2.PvRow(name=row.name))
            for role, value in roles_of(row).items():
                if value.part.first_element:
                    append_part(getattr(held, role), value)
                else:
                    getattr(held, role).CopyFrom(value)
            values = roles_of(held)
            if all(map(is_whole, values.values())):
                print(row.name, *(f"{role}={text(value)}" for role, value in values.items()))

    def freshen(self, change: watch_pb2.FreshnessChange) -> None:
        """No value changes by it: only how far the values are to be believed."""
        for number in list(self.rows) if change.all else change.pv_numbers:
            for value in roles_of(self.rows[number]).values() if number in self.rows else ():
                value.freshness = change.freshness
        print("fresh" if change.freshness == value_pb2.FRESHNESS_FRESH else "STALE", change.reason)


class Silence:
    """Ends a call when nothing has come for so long, for whatever reason.

    A checkpoint is promised each second. The keep-alive of HTTP/2 does not tell: it says that the
    machine answers, and waits for long when the process there stands still.
    """

    def __init__(self, call: Any) -> None:
        self.last = time.monotonic()
        self._call = call
        self._over = threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._over.wait(0.5):
            if time.monotonic() - self.last > SILENCE_S:
                self._call.cancel()

    def stop(self) -> None:
        """The call has ended."""
        self._over.set()


def follow(server: str, key: str, watch: Watch) -> None:
    """Take messages until the connection is lost. Raises `grpc.RpcError`."""
    # A connection of its own each time: the one before may lead to what stands still.
    # Loopback only: grpc.secure_channel with the site's certificates elsewhere.
    options = [("grpc.use_local_subchannel_pool", 1)]
    with grpc.insecure_channel(server, options=options) as channel:
        stub = monitor_service_pb2_grpc.MonitorServiceStub(channel)
        call = stub.WatchPvs(watch.request(), metadata=(("authorization", f"Bearer {key}"),))
        silence = Silence(call)
        try:
            for message in call:
                silence.last = time.monotonic()
                watch.take(message)
        finally:
            silence.stop()


def main() -> None:
    """Connect, watch, and connect again with the token when the connection is lost."""
    server, key, *patterns = sys.argv[1:]
    watch = Watch(patterns)
    while True:
        try:
            follow(server, key, watch)
        except grpc.RpcError as error:
            if reason_of(error) == "TOKEN_UNKNOWN" and watch.token:
                watch.token = ""  # of another version, perhaps: begin anew
            elif error.code().name in FINAL:
                sys.exit(f"{error.code().name}: {error.details()}")
            print("lost:", error.details())
        time.sleep(RETRY_S)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
