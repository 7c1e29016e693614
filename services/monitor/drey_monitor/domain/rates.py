"""Updates a second over a sliding window."""

from __future__ import annotations

from collections import deque


class Rate:
    """The growth of a counter a second, over the last `window_ns`."""

    def __init__(self, window_ns: int = 10_000_000_000) -> None:
        self._window = window_ns
        self._seen: deque[tuple[int, int]] = deque()

    def observe(self, now_ns: int, total: int) -> float:
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
