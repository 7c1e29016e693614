# ruff: noqa: T201
"""Follows changes of catalog, snapshots, plans, restores, jobs and keys; misses none, repeats none.

    python follow.py SERVER KEY FILE

The token of the last change is kept in FILE: started again, the program goes on right after it.
"""

import sys
import time
from contextlib import suppress
from pathlib import Path

import grpc

from drey.event.v1 import event_pb2, event_service_pb2, event_service_pb2_grpc

RETRY_S = 0.5
FINAL = ("UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "UNIMPLEMENTED")


def read_everything() -> None:
    """Where a screen reads its lists: at the begin, and where changes were missed."""
    print("reading every list anew")


def show(event: event_pb2.Event) -> None:
    """One change. `id` is empty where several changed at once: `bulk` counts them."""
    resource = event_pb2.EventResource.Name(event.resource).removeprefix("EVENT_RESOURCE_")
    kind = event_pb2.EventKind.Name(event.kind).removeprefix("EVENT_KIND_")
    print(resource, kind, event.name or event.id or "several", event.state)


def keep(kept: Path, token: str) -> None:
    """Whole or not at all: an empty file would begin at the present, and miss what came before."""
    new = kept.with_suffix(".new")
    new.write_text(token)
    new.replace(kept)


def follow(server: str, key: str, kept: Path) -> None:
    """Take changes until the connection is lost. Raises `grpc.RpcError`."""
    token = kept.read_text() if kept.exists() else ""
    # loopback only: grpc.secure_channel with the site's certificates elsewhere
    with grpc.insecure_channel(server) as channel:
        stub = event_service_pb2_grpc.EventServiceStub(channel)
        request = event_service_pb2.WatchEventsRequest(token=token)
        for message in stub.WatchEvents(request, metadata=(("authorization", f"Bearer {key}"),)):
            match message.WhichOneof("part"):
                case "begin":
                    # before the lists are read: what changes meanwhile comes after this token
                    keep(kept, message.begin.token)
                    if not message.begin.resumed:
                        read_everything()
                    print("following")
                case "events":
                    for event in message.events.events:
                        show(event)
                        keep(kept, event.token)
                case "checkpoint":
                    keep(kept, message.checkpoint.token)
                case "resync_required":
                    print("missed some:", message.resync_required.reason)


def main() -> None:
    """Follow, and connect again with the token when the connection is lost."""
    server, key, kept = sys.argv[1:]
    while True:
        try:
            follow(server, key, Path(kept))
        except grpc.RpcError as error:
            if error.code().name in FINAL:
                sys.exit(f"{error.code().name}: {error.details()}")
            print("lost:", error.details())
        time.sleep(RETRY_S)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
