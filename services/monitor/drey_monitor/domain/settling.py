"""When a shard counts as settled: everything searched for, and what was found has its value."""

from __future__ import annotations

_LOOKS = 3


class Settling:
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

    def restart(self) -> None:
        """Many channels were added: not settled until they are searched for."""
        self.settled = False
        self._progress = None

    def look(
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
