# ruff: noqa: T201
"""Follows PVs for as long as you like, through lost connections.

    python watch.py SERVER KEY PATTERN...

The state of the client is a dictionary: PV number to row. A baseline fills it, each difference
replaces rows in it, and the last token names the instant that it stands for.
"""

import sys
import time
from collections.abc import Iterable
from contextlib import suppress

import grpc

from drey.common.v1 import selector_pb2, value_pb2
from drey.monitor.v1 import monitor_service_pb2, monitor_service_pb2_grpc, watch_pb2

RETRY_S = 0.5
SILENCE_S = 5.0


def text(value: value_pb2.Value) -> str:
    """A value, or what is known instead of it. Zero, missing and disconnected are three things."""
    kind = value.WhichOneof("data")
    if value.state == value_pb2.CONNECTION_STATE_NEVER_CONNECTED:
        return "never connected"
    if kind is None:
        return "no value"
    shown = str(getattr(value, kind)).strip().replace("\n", " ")
    if value.state == value_pb2.CONNECTION_STATE_DISCONNECTED:
        return f"disconnected, was {shown}"
    return f"{shown} (stale)" if value.freshness == value_pb2.FRESHNESS_STALE else shown


class Watch:
    """What this client holds, and where it stands."""

    def __init__(self, patterns: list[str]) -> None:
        self.selector = selector_pb2.Selector(globs=patterns)
        self.rows: dict[int, value_pb2.PvRow] = {}
        self.token = ""

    def request(self) -> monitor_service_pb2.WatchPvsRequest:
        """The first time everything, afterwards what the token lacks."""
        return monitor_service_pb2.WatchPvsRequest(selector=self.selector, token=self.token)

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
        """A row holds the whole state of its PV. (Large arrays come in parts: see `part`.)"""
        for row in rows:
            self.rows[row.number] = row
            fields = [name for name in ("setpoint", "readback") if row.HasField(name)]
            print(row.name, *(f"{name}={text(getattr(row, name))}" for name in fields))

    def freshen(self, change: watch_pb2.FreshnessChange) -> None:
        """No value changes by it: only how far the values are to be believed."""
        for number in list(self.rows) if change.all else change.pv_numbers:
            for name in ("setpoint", "readback"):
                if number in self.rows and self.rows[number].HasField(name):
                    getattr(self.rows[number], name).freshness = change.freshness
        print("fresh" if change.freshness == value_pb2.FRESHNESS_FRESH else "STALE", change.reason)


def main() -> None:
    """Connect, watch, and connect again with the token when the connection is lost."""
    server, key, *patterns = sys.argv[1:]
    watch = Watch(patterns)
    options = [
        ("grpc.keepalive_time_ms", int(SILENCE_S * 1000)),
        ("grpc.keepalive_timeout_ms", 2000),
    ]
    # Loopback only: grpc.secure_channel with the site's certificates elsewhere.
    with grpc.insecure_channel(server, options=options) as channel:
        stub = monitor_service_pb2_grpc.MonitorServiceStub(channel)
        while True:
            try:
                for message in stub.WatchPvs(
                    watch.request(), metadata=(("authorization", f"Bearer {key}"),)
                ):
                    watch.take(message)
            except grpc.RpcError as error:
                if error.code() not in (
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                ):
                    sys.exit(f"{error.code().name}: {error.details()}")
                print("lost:", error.details())
            time.sleep(RETRY_S)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
