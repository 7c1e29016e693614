"""Who may own by a lease that has to be renewed: the rules, without a clock and without I/O.

Instants are seconds of the asker's own clock, one that never jumps and goes on while the process
is stopped (`CLOCK_BOOTTIME`). No rule compares the clocks of two hosts; they have to run at the
same *rate*, to a fifth. `docs/explanation/ownership.md` has the argument.

An epoch grows by one at each take-over, and is at least the time of it in milliseconds since 1970.
One that is far beyond those known was never given to an owner: it is a defect's or a vandal's, and
believing it would shut the true owner out for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

EPOCH_STEP = 1 << 42
"""More than the milliseconds from 1970 to 2109, so that who knows none yet believes the first."""

_SILENT_PART = 0.75
"""Of the duration: the holder falls silent a quarter of it before anybody may follow."""


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A lease as the server has it."""

    uid: str
    """Of the object: one that was deleted and made again has another."""
    version: str
    """A write that names an older one is refused."""
    holder: str
    """Empty: nobody."""
    epoch: int
    """The greatest that was given out; 0 where the object tells of none."""
    duration_s: float
    """How long the holder may stay silent; 0 where nobody ever held it."""
    renewed: str
    """The holder's word of when it renewed; looked at for change only."""
    given_back: bool
    """The last holder had stopped when it let go."""


class Candidate:
    """What one who waits has seen of a lease."""

    def __init__(self, duration_s: float) -> None:
        self._duration_s = duration_s
        self._sign: tuple[str, str, int, str] | None = None
        self._changed_at = self._looked_at = float("-inf")

    def duration_of(self, record: LeaseRecord) -> float:
        """How long it has to be looked at without a change: its holder's word of it, if any."""
        return record.duration_s if record.duration_s > 0 else self._duration_s

    def may_take(self, record: LeaseRecord, now_s: float) -> bool:
        """Whether nobody can be publishing by this lease; `now_s`: when its record had come.

        At once where its holder gave it back; otherwise where it was looked at, again and again,
        for its whole duration without a change. A new object counts as held: the holder of the
        deleted one may not know yet. A long time without a look proves nothing, for then the
        holder may have been cut off as well: it is given another duration.
        """
        duration_s = self.duration_of(record)
        sign = (record.uid, record.holder, record.epoch, record.renewed)
        if sign != self._sign or now_s - self._looked_at > duration_s:
            self._sign, self._changed_at = sign, now_s
        self._looked_at = now_s
        return record.given_back or now_s - self._changed_at >= duration_s


def still_held(mine: LeaseRecord, stored: LeaseRecord | None) -> bool:
    """Whether `stored` shows that nobody else held the lease since we wrote `mine`."""
    return stored is not None and (stored.uid, stored.holder, stored.epoch) == (
        mine.uid,
        mine.holder,
        mine.epoch,
    )


def publishes_until(sent_s: float, duration_s: float) -> float:
    """Until when the holder may publish that sent its last successful write at `sent_s`.

    Whoever waits begins to count when it sees that write, which is later.
    """
    return sent_s + duration_s * _SILENT_PART


def first_epoch(wall_ns: int) -> int:
    """The least epoch that an owner of now may have: the milliseconds since 1970.

    It stands in where every memory of former epochs was wiped: there are fewer owners than
    milliseconds, so their count stays behind the time. 0 where the clock tells no believable time.
    """
    millis = wall_ns // 10**6
    return millis if 0 < millis < EPOCH_STEP else 0


def epoch_after(recorded: int, seen: Sequence[int]) -> int:
    """The epoch of a new owner: greater than what is `recorded` and than every one `seen`.

    A record that nobody can have written properly counts as none.
    """
    last_seen = max(seen, default=0)
    return max(recorded if epoch_believable(recorded, max(last_seen, 1)) else 0, last_seen) + 1


def epoch_believable(epoch: int, greatest: int) -> bool:
    """Whether an owner may have this epoch, `greatest` being the greatest believed so far."""
    return 0 < epoch <= greatest + EPOCH_STEP
