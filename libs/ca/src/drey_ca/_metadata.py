"""Metadata of channels that nobody subscribed to: one control get each, a few at a time."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import Any

from drey_ca import _dbr as dbr
from drey_ca import _libca as ca
from drey_ca._store import Store
from drey_ca.eca import ECA_NORMAL
from drey_core.values import State

UNDER_WAY = 1_000
"""Control gets under way to one server."""


class MetadataFetcher:
    """Asks for `dbr_ctrl_*` of channels in turn, with a window for each server."""

    def __init__(self, store: Store, callback: Any) -> None:
        self._store, self._callback = store, callback
        self._queue: dict[int, deque[int]] = defaultdict(deque)
        self._under_way: dict[int, int] = {}
        self._load: dict[int, int] = defaultdict(int)

    def request(self, slots: list[int]) -> None:
        """Ask for these, in time. Strings have no metadata and are left out."""
        hosts = set()
        for slot in slots:
            if self._store.native[slot] != dbr.DBR_STRING and self._store.rights[slot] & 1:
                host = int(self._store.host_id[slot])
                self._queue[host].append(self._store.token(slot))
                hosts.add(host)
        for host in hosts:
            self._pump(host)

    def finished(self, tokens: list[int]) -> None:
        """Answers came, or never will."""
        hosts = {self._under_way.pop(token, -1) for token in tokens}
        counts = [host for host in hosts if host >= 0]
        for host in counts:
            self._load[host] = sum(1 for h in self._under_way.values() if h == host)
            self._pump(host)

    def _pump(self, host: int) -> None:
        queue = self._queue[host]
        while queue and self._load[host] < UNDER_WAY:
            self._send(host, queue.popleft())
        ca.flush_io()

    def _send(self, host: int, token: int) -> None:
        slot = self._store.slot(token)
        if slot < 0 or self._store.state[slot] != State.CONNECTED or token in self._under_way:
            return
        if self._store.property_sub[slot]:  # subscribed meanwhile: its first event is the answer
            return
        kind = int(self._store.native[slot]) + dbr.CTRL
        chid = int(self._store.chid[slot])
        # A failure here means that it disconnected just now: asked again when it is back.
        if ca.array_get_callback(kind, 1, chid, self._callback, token) == ECA_NORMAL:
            self._under_way[token] = host
            self._load[host] += 1
