"""Spreads the shards over the monitors, and hands over what this one gives away.

The owner of a shard decides, by `domain.balance`, and offers the shard to another in its report.
Who is offered a shard connects its channels and says that it is prepared; then the owner lets go,
and the other, which waits for the lease as always, has it and publishes at once. All others leave
a shard that is offered alone. Where warm standbys are asked for each monitor finds by the same
plan which shards it keeps warm, and the others leave those alone as well, as long as their standby
is heard. Reports are hints, no more: who owns is decided by the lease.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass

from drey.events.v1.instances_pb2 import InstanceReport
from drey_core.errors import Malformed
from drey_monitor.domain.balance import (
    Move,
    ShardLoad,
    SteadyNeed,
    plan_moves,
    plan_standbys,
)
from drey_monitor.loops.epochs import EpochListener, HeardBeat
from drey_monitor.owned import Shards
from drey_runtime.bus import Bus
from drey_runtime.edge import decode_instance, note_error
from drey_runtime.instances import InstanceReports, instance_name
from drey_runtime.nats_client import Msg

log = logging.getLogger(__name__)

_STEP_S = 0.1
_LIVES_S = 3.5
"""A monitor that gave no report for so long is no taker; it gives one a second."""
_BEATS_S = 2.5
_STEADY_S = 1.0
"""For so long something has to be planned to move before the first is moved."""
_LOOK_FIRST_S = 3.0
_PREPARE_S = 15.0
_GIVEN_S = 3.0
"""After an owner let go the others leave the shard alone for so long."""
_STANDBY_STEADY_S = 3.0
"""For so long a change of standbys has to be planned: a fail-over comes first, and is not to be
held up by an IOC that takes the subscriptions of another standby."""
_STANDBY_STEP_S = 0.5
_YIELD_S = 3.0
"""Beyond the time in which its lease can be taken a shard is left to its standby for so long."""
_MOST_OFFERS = 4
_LEAVE_S = 8.0


@dataclass(slots=True)
class _Member:
    """Another monitor."""

    report: InstanceReport
    heard_at: float

    @property
    def offered_shards(self) -> dict[int, str]:
        return {offer.shard: offer.to for offer in self.report.offers}

    @property
    def warm(self) -> set[int]:
        """Shards that it could take over at once, as their standby."""
        return set(self.report.standby_shards) & set(self.report.prepared)


@dataclass(slots=True)
class _Offer:
    """One shard that this monitor hands over."""

    taker: str
    made_at: float
    given_at: float | None = None


@dataclass(frozen=True)
class BalanceRules:
    """How the shards of a site are to be shared among its monitors.

    `follow_s`: within which a lease whose owner died is taken, as long as somebody can.
    """

    shard_count: int
    enabled: bool
    warm_standbys: int = 0
    follow_s: float = 0.0


class Balancer:
    """One for each monitor. Where NATS is away nothing is moved."""

    def __init__(
        self,
        shards: Shards,
        epochs: EpochListener,
        bus: Bus,
        rules: BalanceRules,
    ) -> None:
        self._shards, self._epochs, self._bus = shards, epochs, bus
        self._rules = rules
        self._me = instance_name()
        self._members: dict[str, _Member] = {}
        self._offers: dict[int, _Offer] = {}
        self._need = SteadyNeed(_STEADY_S)
        self._standing: set[int] = set()
        """Shards that this process keeps warm, or begins to."""
        self._standby_need, self._next_standby_look = SteadyNeed(_STANDBY_STEADY_S), 0.0
        self._leaving = False
        self.reports: InstanceReports | None = None

    async def on_report(self, message: Msg) -> None:
        """An `InstanceReport` of a monitor came, possibly our own."""
        try:
            report = decode_instance(message.data)
        except Malformed as error:
            note_error(error, "reports of instances")
            return
        if report.instance != self._me:
            if report.instance not in self._members:
                log.info("another monitor is there: %s", report.instance)
            self._members[report.instance] = _Member(report, time.monotonic())

    def describe_load(self, report: InstanceReport) -> None:
        """What the others have to know of this monitor."""
        report.leaving = self._leaving or self._shards.released.is_set()
        report.full = self._shards.is_full
        for shard, offer in self._offers.items():
            report.offers.add(shard=shard, to=offer.taker)
        report.prepared.extend(self._prepared())
        report.standby_shards.extend(sorted(self._standing))
        report.warm_standbys = self._rules.warm_standbys

    async def run(self) -> None:
        """Look ten times a second."""
        begun = time.monotonic()
        while True:
            now = time.monotonic()
            before = self._report_state()
            self._forget_silent(now)
            self._follow_offers(now)
            if self._leaving or (self._rules.enabled and now - begun > _LOOK_FIRST_S):
                self._make_offers(now)
            if now >= self._next_standby_look:
                self._next_standby_look = now + _STANDBY_STEP_S
                self._plan_standbys(now)
            self._tell_turns(now)
            if self._report_state() != before:
                self._report_load()
            await asyncio.sleep(_STEP_S)

    async def leave_members(self) -> None:
        """Hand everything over to others, as far as there are any; takes eight seconds at most."""
        if not self._bus.connected or not self._offer_takers():
            return
        self._leaving = True
        self._report_load()
        end = time.monotonic() + _LEAVE_S
        while self._shards.holds_leases and time.monotonic() < end and self._offer_takers():
            await asyncio.sleep(_STEP_S / 2)
        # whoever was last given one is to be heard before this process is not
        log.info("left with %d shards", len(self._shards))

    # --- inside ---

    def _report_load(self) -> None:
        if self.reports is not None:
            self.reports.report_soon()

    def _report_state(self) -> object:
        offers = {s: (o.taker, o.given_at) for s, o in self._offers.items()}
        return self._prepared(), offers, self._shards.is_full, set(self._standing)

    def _prepared(self) -> list[int]:
        return [s for s in range(self._rules.shard_count) if self._shards.shard_turn(s).prepared]

    def _offer_takers(self) -> list[str]:
        """Other monitors that may take one more."""
        now = time.monotonic()
        return [
            name
            for name, member in self._members.items()
            if now - member.heard_at <= _LIVES_S
            and not (member.report.leaving or member.report.full)
        ]

    def _forget_silent(self, now: float) -> None:
        self._members = {n: m for n, m in self._members.items() if now - m.heard_at <= _LIVES_S}

    def _follow_offers(self, now: float) -> None:
        """Let go of what the taker is prepared for; take back what nobody prepares."""
        for shard, offer in list(self._offers.items()):
            taker = self._members.get(offer.taker)
            if offer.given_at is not None:
                if now - offer.given_at > _GIVEN_S:
                    del self._offers[shard]
            elif taker is None or now - offer.made_at > _PREPARE_S:
                del self._offers[shard]
            elif shard in taker.report.prepared:
                offer.given_at = now
                # before it is free: this process waits for it too
                self._shards.shard_turn(shard).set_free(False)
                owned = self._shards.get(shard)
                if owned is not None:
                    log.info("shard %d: %s is prepared, handing over", shard, offer.taker)
                    owned.given.set()

    def _make_offers(self, now: float) -> None:
        planned = self._plan_moves(now)
        lasting = self._need.observe_need(bool(planned), self._offer_takers(), now)
        moves = self._mine_of(planned)
        if not moves or not (lasting or self._leaving):
            return
        most = self._rules.shard_count if self._leaving else _MOST_OFFERS
        for move in moves[: max(most - len(self._offers), 0)]:
            log.info("shard %d: offered to %s", move.shard, move.taker)
            self._offers[move.shard] = _Offer(move.taker, now)
        self._need.restart_wait()

    def _mine_of(self, moves: list[Move]) -> list[Move]:
        return [
            move
            for move in moves
            if move.giver == self._me
            and move.shard not in self._offers
            and self._shards.get(move.shard) is not None
        ]

    def _plan_moves(self, now: float) -> list[Move]:
        """Nothing while some shard has no owner that is heard: a fail-over comes first."""
        if not self._all_owned(now) and not self._leaving:
            return []
        takers = self._offer_takers()
        if not self._leaving and not self._shards.released.is_set():
            takers.append(self._me)
        leaving = [self._me] if self._leaving else []
        warm = {s: [n for n, m in self._members.items() if s in m.warm] for s in self._beats()}
        return plan_moves(self._owners(), self._loads(), takers, leaving, warm)

    def _plan_standbys(self, now: float) -> None:
        """Which shards this process is to keep warm, once the same has been planned for a while."""
        self._standing -= {s for s in self._standing if self._shards.get(s) is not None}
        if not self._rules.warm_standbys or self._leaving or self._shards.released.is_set():
            self._standing.clear()
            return
        standbys: dict[int, set[str]] = {s: set() for s in range(self._rules.shard_count)}
        for name, shards in self._standbys_of().items():
            for shard in shards & standbys.keys():
                standbys[shard].add(name)
        monitors = [n for n in self._offer_takers() if self._members[n].report.warm_standbys]
        if not self._shards.is_full:
            monitors.append(self._me)
        planned = plan_standbys(
            self._owners(), standbys, self._loads(), monitors, self._rules.warm_standbys
        )
        begin = {s for s, names in planned.items() if self._me in names} - self._standing
        # whom another relieves ends once that one is warm
        end = {
            shard
            for shard in self._standing
            if self._me not in planned.get(shard, ())
            and all(self._is_warm(name, shard) for name in planned.get(shard, ()))
        }
        needed = bool(begin or end) and self._all_owned(now)
        if self._standby_need.observe_need(needed, monitors, now):
            for shard in sorted(begin):
                log.info("shard %d: kept warm", shard)
            for shard in sorted(end):
                log.info("shard %d: not kept warm any more", shard)
            self._standing = self._standing - end | begin
            self._standby_need.restart_wait()

    def _standbys_of(self) -> dict[str, set[int]]:
        """Shards that each monitor, this one too, keeps warm or begins to."""
        members = {n: set(m.report.standby_shards) for n, m in self._members.items()}
        return members | {self._me: self._standing}

    def _is_warm(self, name: str, shard: int) -> bool:
        if name == self._me:
            return self._shards.shard_turn(shard).prepared
        member = self._members.get(name)
        return member is not None and shard in member.warm

    def _beats(self) -> dict[int, HeardBeat]:
        return {s: beat for s, beat in self._epochs.beats.items() if s < self._rules.shard_count}

    def _all_owned(self, now: float) -> bool:
        """Whether the owner of every shard is heard."""
        heard = {s for s, beat in self._beats().items() if now - beat.heard_at <= _BEATS_S}
        return len(heard) == self._rules.shard_count

    def _owners(self) -> dict[int, str]:
        """Who has each shard, or is promised it."""
        owners = {shard: beat.owner for shard, beat in self._beats().items()}
        for member in self._members.values():
            owners.update(member.offered_shards)
        owners.update((shard, offer.taker) for shard, offer in self._offers.items())
        return owners

    def _loads(self) -> dict[int, ShardLoad]:
        return {s: ShardLoad(b.channels, b.updates_per_s) for s, b in self._beats().items()}

    def _tell_turns(self, now: float) -> None:
        """Which shards this process may try for, and which it prepares for."""
        offered: dict[int, str] = {}
        kept_warm: set[int] = set()
        for member in self._members.values():
            offered.update(member.offered_shards)
            kept_warm |= member.warm
        for shard in range(self._rules.shard_count):
            turn = self._shards.shard_turn(shard)
            mine = self._offers.get(shard)
            to = offered.get(shard)
            turn.set_wanted(
                offered=to == self._me and not self._leaving, standing=shard in self._standing
            )
            given_away = self._leaving or (mine is not None and mine.given_at is not None)
            # who would have to connect the channels first lets the one go first that has them; not
            # for ever, because that one may not be able to take the lease
            beat = self._epochs.beats.get(shard)
            followed_now = beat and now - beat.heard_at <= self._rules.follow_s + _YIELD_S
            others_turn = followed_now and shard in kept_warm and not turn.prepared
            free_for_me = to == self._me or (to is None and not others_turn)
            turn.set_free(not given_away and free_for_me)
