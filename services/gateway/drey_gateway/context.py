"""What all watches of a gateway share."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

from drey_gateway.domain.live import LiveState
from drey_gateway.mapping_metadata import MetadataEncoder
from drey_gateway.ports import Resolver
from drey_runtime.admission import Room
from drey_runtime.auth import current_principal
from drey_runtime.waiting import ChangeSignal


class WatcherLimit:
    """All running watches and reads of this gateway: of so many, one key has a share at most."""

    def __init__(self, limit: int, share: float = 1.0) -> None:
        self._room = Room("watches and reads", limit, share)

    def __len__(self) -> int:
        return self._room.taken

    def take_watcher(self) -> AbstractContextManager[None]:
        """Hold a place of the key that calls. Raises `ResourceExhausted` when there is none."""
        return self._room.take_place(current_principal.get().key_id, "this key")


@dataclass(frozen=True, slots=True)
class WatchContext:
    """What a watch needs around it."""

    live: LiveState
    changed: ChangeSignal
    limiter: WatcherLimit
    resolver: Resolver
    stale: Callable[[], dict[int, str]]
    bus_connected: Callable[[], bool]
    metadata: MetadataEncoder = field(default_factory=MetadataEncoder)
