"""Which monitor should own which shard. Pure, and the same for all who see the same.

Shards weigh by their channels and by their measured updates, each as a multiple of the average. A
move has to make the heavier of two monitors clearly lighter, so that rates which go up and down
a little move nothing to and fro.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

_QUIET_RATE = 1.0
"""Updates a second of an average shard, below which rates are noise."""
_LEAST_GAIN = 0.25
"""Of an average shard: what a move has to gain."""
_LEAST_PART = 0.1
"""Of what the heavier one has: likewise."""


@dataclass(frozen=True, slots=True)
class ShardLoad:
    """What owning a shard costs: channels, and updates a second, None where nobody knows yet."""

    channels: float
    updates_per_s: float | None


@dataclass(frozen=True, slots=True)
class Move:
    """A shard that should go from one monitor to another."""

    shard: int
    giver: str
    taker: str


class SteadyNeed:
    """Tells whether something has had to move for `steady_s`, among the same monitors.

    Which shard would go may change at every look, because rates go up and down: that something
    has to go is what must last.
    """

    def __init__(self, steady_s: float) -> None:
        self._steady_s = steady_s
        self._since: float | None = None
        self._takers: frozenset[str] = frozenset()

    def observe(self, needed: bool, takers: Collection[str], now: float) -> bool:
        """Look at a plan; `now` in seconds. True: the need has lasted."""
        if frozenset(takers) != self._takers:
            self._takers, self._since = frozenset(takers), None
        if not needed:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self._steady_s

    def restart(self) -> None:
        """Something was moved: what is left to move has to last again."""
        self._since = None


def shard_weights(loads: Mapping[int, ShardLoad]) -> dict[int, float]:
    """Weight of each shard; the average is 1."""
    if not loads:
        return {}
    channels = math.fsum(load.channels for load in loads.values()) / len(loads)
    known_rates = [load.updates_per_s for load in loads.values() if load.updates_per_s is not None]
    rate = math.fsum(known_rates) / len(known_rates) if known_rates else 0.0
    weights = {}
    for shard, load in loads.items():
        parts = [load.channels / channels if channels else 1.0]
        if rate >= _QUIET_RATE:
            parts.append(1.0 if load.updates_per_s is None else load.updates_per_s / rate)
        weights[shard] = sum(parts) / len(parts)
    return weights


def plan_moves(
    owners: Mapping[int, str],
    loads: Mapping[int, ShardLoad],
    takers: Collection[str],
    leaving: Collection[str] = (),
) -> list[Move]:
    """The moves that spread the shards over `takers`, in order; none where it is well.

    `owners`: who has each shard, or is promised it. All shards of those `leaving` go; shards of
    others who are no takers stay. Nobody is moved twice.
    """
    if not takers:
        return []
    weights = shard_weights({shard: loads.get(shard, ShardLoad(0, None)) for shard in owners})
    held: dict[str, set[int]] = {name: set() for name in (*takers, *leaving)}
    for shard, owner in owners.items():
        held.setdefault(owner, set()).add(shard)
    total = {name: math.fsum(weights[s] for s in mine) for name, mine in held.items()}
    moves: list[Move] = []

    def move_shard(shard: int, giver: str, taker: str) -> None:
        held[giver].discard(shard)
        total[giver] -= weights[shard]
        total[taker] += weights[shard]
        moves.append(Move(shard, giver, taker))

    def lightest() -> str:
        return min(takers, key=lambda name: (total[name], name))

    for giver in sorted(leaving):
        for shard in sorted(held[giver], key=lambda s: (-weights[s], s)):
            move_shard(shard, giver, lightest())
    # what has arrived in this plan stays: it is not in `held`
    while True:
        taker = lightest()
        givers = sorted(
            (name for name in takers if held[name] and name != taker),
            key=lambda name: (-total[name], name),
        )
        for giver in givers:
            gap = total[giver] - total[taker]
            least = max(_LEAST_GAIN, _LEAST_PART * total[giver])
            fitting = [s for s in held[giver] if gap - weights[s] >= least]
            if fitting:
                # closest to half of the gap: little is left to be moved between the two
                best = min(fitting, key=lambda s: (abs(weights[s] - gap / 2), s))
                move_shard(best, giver, taker)
                break
        else:
            return moves
