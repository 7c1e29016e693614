"""Which monitor should own which shard, and which keep it warm beside the owner.

Pure, and the same for all who see the same. Shards weigh by their channels and by their measured
updates, each as a multiple of the average. A move has to make the heavier of two monitors clearly
lighter, so that rates which go up and down a little move nothing to and fro.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

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

    def observe_need(self, needed: bool, takers: Collection[str], now: float) -> bool:
        """Look at a plan; `now` in seconds. True: the need has lasted."""
        if frozenset(takers) != self._takers:
            self._takers, self._since = frozenset(takers), None
        if not needed:
            self._since = None
            return False
        if self._since is None:
            self._since = now
        return now - self._since >= self._steady_s

    def restart_wait(self) -> None:
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
    prepared: Mapping[int, Collection[str]] = MappingProxyType({}),
) -> list[Move]:
    """The moves that spread the shards over `takers`, in order; none where it is well.

    `owners`: who has each shard, or is promised it. All shards of those `leaving` go, each to one
    that is `prepared` for it where there is one; shards of others who are no takers stay. Nobody is
    moved twice.
    """
    if not takers:
        return []
    weights = shard_weights({shard: loads.get(shard, ShardLoad(0, None)) for shard in owners})
    held: dict[str, set[int]] = {name: set() for name in (*takers, *leaving)}
    for shard, owner in owners.items():
        held.setdefault(owner, set()).add(shard)
    total = {name: math.fsum(weights[s] for s in mine) for name, mine in held.items()}
    moves: list[Move] = []

    def move_shard(move: Move) -> None:
        # what has arrived in this plan stays: it is not in `held`
        held[move.giver].discard(move.shard)
        total[move.giver] -= weights[move.shard]
        total[move.taker] += weights[move.shard]
        moves.append(move)

    for giver in sorted(leaving):
        for shard in sorted(held[giver], key=lambda s: (-weights[s], s)):
            warm = [name for name in takers if name in prepared.get(shard, ())]
            move_shard(Move(shard, giver, _lightest(warm or takers, total)))
    while True:
        # what the lightest does not take is too little for the others
        lightest = [_lightest(takers, total)]
        move = _next_move(held, total, weights, lightest, takers, lambda shard, taker: True)
        if move is None:
            return moves
        move_shard(move)


def plan_standbys(
    owners: Mapping[int, str],
    standbys: Mapping[int, Collection[str]],
    loads: Mapping[int, ShardLoad],
    monitors: Collection[str],
    count: int,
) -> dict[int, frozenset[str]]:
    """Who should keep each shard warm: `count` of `monitors`, or all but the owner where fewer.

    `standbys`: who keeps it warm or prepares to. They stay where they can, since a change costs the
    IOCs as many connections as the shard has channels; otherwise these are spread as owners are,
    and those of one owner over several monitors.
    """
    weights = shard_weights({shard: loads.get(shard, ShardLoad(0, None)) for shard in owners})
    total = dict.fromkeys(monitors, 0.0)
    kept: dict[int, set[str]] = {}
    for shard, owner in sorted(owners.items()):  # sums are the same for all who plan
        kept[shard] = {n for n in standbys.get(shard, ()) if n in total and n != owner}
        for name in kept[shard]:
            total[name] += weights[shard]
    for shard in sorted(owners):
        # one too many: a move is under way, to the lighter one
        while len(kept[shard]) > count:
            heaviest = max(kept[shard], key=lambda name: (total[name], name))
            kept[shard].discard(heaviest)
            total[heaviest] -= weights[shard]
    for shard in sorted(owners, key=lambda s: (-weights[s], s)):
        beside = [n for s, names in kept.items() if owners[s] == owners[shard] for n in names]
        free = sorted(total.keys() - kept[shard] - {owners[shard]})
        while free and len(kept[shard]) < count:
            chosen = min(free, key=lambda name: (total[name], beside.count(name)))
            free.remove(chosen)
            kept[shard].add(chosen)
            total[chosen] += weights[shard]
    # one without any weight makes nobody lighter, and could go on for ever
    movable = {n: {s for s, keepers in kept.items() if n in keepers and weights[s]} for n in total}

    def may_take(shard: int, taker: str) -> bool:
        return taker != owners[shard] and taker not in kept[shard]

    while True:
        takers = sorted(total, key=lambda name: (total[name], name))
        move = _next_move(movable, total, weights, takers, takers, may_take)
        if move is None:
            return {shard: frozenset(names) for shard, names in kept.items()}
        movable[move.giver].discard(move.shard)
        movable[move.taker].add(move.shard)
        kept[move.shard] = kept[move.shard] - {move.giver} | {move.taker}
        total[move.giver] -= weights[move.shard]
        total[move.taker] += weights[move.shard]


def _lightest(takers: Collection[str], total: Mapping[str, float]) -> str:
    return min(takers, key=lambda name: (total[name], name))


def _next_move(
    held: Mapping[str, Collection[int]],
    total: Mapping[str, float],
    weights: Mapping[int, float],
    takers: Sequence[str],
    givers: Collection[str],
    may_take: Callable[[int, str], bool],
) -> Move | None:
    """The move to the first of `takers`, from the heaviest, that gains enough; None: none does."""
    heaviest_first = sorted((n for n in givers if held[n]), key=lambda n: (-total[n], n))
    for taker in takers:
        for giver in heaviest_first:
            gap = total[giver] - total[taker]
            least = max(_LEAST_GAIN, _LEAST_PART * total[giver])
            fitting = [s for s in held[giver] if gap - weights[s] >= least and may_take(s, taker)]
            if fitting:
                # closest to half of the gap: little is left to be moved between the two
                shard = min(fitting, key=lambda s: (abs(weights[s] - gap / 2), s))
                return Move(shard, giver, taker)
    return None
