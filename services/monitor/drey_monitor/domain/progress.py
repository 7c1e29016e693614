"""How a shard gets on, as its heartbeats tell: whether it has settled, and its rate of updates."""

from __future__ import annotations

from collections import deque

_LOOKS = 3


class SearchSettling:
    """Decides by looks at the counts. Once settled it stays so until `restart`.

    Nobody can tell a dead channel from one not found yet, so the search counts as done when for
    `quiet_ns`, and for three looks, neither a further channel nor a further first value came.
    """

    def __init__(self, quiet_ns: int) -> None:
        self._quiet = quiet_ns
        self.settled = False
        self._progress: tuple[int, int] | None = None
        self._since = 0
        self._looks = 0

    def restart_search(self) -> None:
        """Many channels were added: not settled until they are searched for."""
        self.settled = False
        self._progress = None

    def has_settled(
        self, now_ns: int, *, searched: bool, channels: int, connected: int, valued: int
    ) -> bool:
        """Whether it is settled now. `valued` counts the connected channels with a value."""
        if self.settled or not searched:
            return self.settled
        if valued == connected == channels:
            self.settled = True
        elif (connected, valued) != self._progress:
            self._progress, self._since, self._looks = (connected, valued), now_ns, 0
        else:
            self._looks += 1
            self.settled = self._looks >= _LOOKS and now_ns - self._since >= self._quiet
        return self.settled


class UpdateRate:
    """The growth of a counter a second, over the last `window_ns`."""

    def __init__(self, window_ns: int = 10_000_000_000) -> None:
        self._window = window_ns
        self._seen: deque[tuple[int, int]] = deque()

    def observe_total(self, now_ns: int, total: int) -> float:
        """Note the counter at `now_ns`; its growth a second since the oldest look in the window.

        A clock that went backwards begins the window anew.
        """
        if self._seen and now_ns <= self._seen[-1][0]:
            self._seen.clear()
        self._seen.append((now_ns, total))
        while len(self._seen) > 2 and now_ns - self._seen[1][0] >= self._window:
            self._seen.popleft()
        (begin, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) * 1e9 / (end - begin) if end > begin else 0.0
