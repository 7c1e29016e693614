"""The lock of Postgres under everything that can happen to hosts, clocks, ways and memories.

As tests/unit/runtime/test_lease_machine.py does it for the Leases of Kubernetes. Here a term does
not run out: a host whose session was lost goes on until it knows, under its epoch. So the laws are:
of those that lost none one at most owns it, no epoch is had twice, and once all is well again one
is left, which has the lock and the greatest epoch of all.
"""

from __future__ import annotations

from typing import Literal

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from drey_runtime.lease_postgres import session_name

from .lease_hosts import PostgresHost, PostgresWorld

HOSTS = st.integers(0, 2)
RATES = st.sampled_from([0.5, 1.0, 2.0])
SECONDS = st.sampled_from([0.005, 0.02, 0.06])
JUMPS = st.sampled_from([-1e9, -3600.0, -1.0, 1.0, 3600.0, 1e9])
EXAMPLES, STEPS = 8, 25
"""Each example takes about a second: sessions of a real server begin and end in it."""


class PostgresLeases(RuleBasedStateMachine):
    """Three monitors that want one shard."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url
        self.world: PostgresWorld | None = None
        self.places: list[PostgresHost] = []

    @initialize(
        mode=st.sampled_from(["keep", "stop"]), agree=st.booleans(), rates=st.tuples(*[RATES] * 3)
    )
    def begin(self, mode: Literal["keep", "stop"], agree: bool, rates: tuple[float, ...]) -> None:
        self.clocks_agree = agree
        self.world = PostgresWorld(self._url, mode)
        self.places = [
            self.new_host(rate, 0 if agree else (number - 1) * 3600.0)
            for number, rate in enumerate(rates)
        ]

    @property
    def here(self) -> PostgresWorld:
        assert self.world is not None
        return self.world

    def new_host(self, rate: float, wall_s: float) -> PostgresHost:
        return PostgresHost(self.here, f"monitor_{len(self.here.hosts)}", rate, wall_s)

    def may_forget(self, remembered: int) -> bool:
        """Clocks that disagree stand in for no memory: one of the two has to be left."""
        return self.clocks_agree or remembered >= max(self.here.epochs, default=0)

    @invariant()
    def laws(self) -> None:
        """Each host has its turns after each thing that happens."""
        if self.world is not None:
            self.world.pass_time(0.005)

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        self.here.pass_time(seconds)

    @rule(at=HOSTS)
    def stop_or_go_on(self, at: int) -> None:
        self.places[at].stopped = not self.places[at].stopped

    @rule(at=HOSTS)
    def hold_up_or_let_pass(self, at: int) -> None:
        way = self.places[at].way
        if way.held_up:
            way.let_pass()
        else:
            self.here.disturb(self.places[at])
            way.hold_up()

    @rule(at=HOSTS)
    def break_way(self, at: int) -> None:
        self.here.disturb(self.places[at])
        self.places[at].way.break_off()

    @rule(at=HOSTS)
    def server_notices(self, at: int) -> None:
        self.here.disturb(self.places[at])
        self.places[at].way.tell_server()

    @rule(at=HOSTS)
    def end_sessions(self, at: int) -> None:
        self.here.end_sessions(self.places[at])

    @rule(at=HOSTS)
    def image_slow_or_not(self, at: int) -> None:
        self.places[at].slow_image_s = 0.03 - self.places[at].slow_image_s

    @rule(at=HOSTS, rate=RATES)
    def die_and_start_anew(self, at: int, rate: float) -> None:
        self.places[at].die()
        self.places[at] = self.new_host(rate, self.places[at].wall_s)

    @rule(at=HOSTS)
    def end_in_order(self, at: int) -> None:
        self.places[at].way.let_pass()
        self.places[at].end_in_order()
        self.die_and_start_anew(at, 1.0)

    @rule()
    def wipe_epochs(self) -> None:
        # one that was given out just now is in no other memory yet
        in_image = self.here.remembered_epoch() <= self.here.image_epoch
        if in_image and self.may_forget(self.here.image_epoch):
            self.here.wipe_epochs()

    @rule()
    def wipe_image(self) -> None:
        if self.may_forget(self.here.remembered_epoch()):
            self.here.image_epoch = 0

    @rule(at=HOSTS, seconds=JUMPS)
    def jump(self, at: int, seconds: float) -> None:
        if not self.clocks_agree:
            self.places[at].wall_s += seconds

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            for host in self.places:
                host.stopped = False
                host.way.let_pass()
                host.way.tell_server()
                self.world.disturb(host)
            if self.world.broken:
                return
            self.world.pass_until(self.one_is_left, "one owner that has the lock")
        finally:
            self.world.close()

    def one_is_left(self) -> bool:
        valid = [host for host in self.places if host.valid]
        if len(valid) != 1:
            return False
        (owner,) = valid
        assert owner.term is not None
        holder = self.here.holder()
        has_lock = holder is not None and holder[0] == session_name(owner.name)
        return has_lock and owner.term.epoch == max(self.here.epochs)


def test_whatever_happens_one_owns_it_and_epochs_are_had_once(url: str) -> None:
    run_state_machine_as_test(
        lambda: PostgresLeases(url),
        settings=settings(
            max_examples=EXAMPLES * settings().max_examples // 200,
            stateful_step_count=STEPS,
            # in real time no example is the same twice, so none can be made smaller
            phases=[Phase.generate],
        ),
    )
