"""Two owners at a time: never, whatever clocks, networks and processes do."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from drey_core.election import (
    Candidate,
    LeaseRecord,
    epoch_after,
    first_epoch,
    publishes_until,
)
from drey_testing.lease_world import DURATION_S, STEP_S, Host, LeaseWorld

HOSTS = st.integers(0, 2)
SECONDS = st.sampled_from([STEP_S, 0.5, 1.0, 2.0, 3.0, 4.5, 10.0])
RATES = st.sampled_from([0.9, 0.97, 1.0, 1.03, 1.1])


class Leases(RuleBasedStateMachine):
    """Three monitors that want one shard."""

    def __init__(self) -> None:
        super().__init__()
        self.world = LeaseWorld()
        self.places: list[Host] = []
        self.clocks_agree = True
        self.born = 0

    @initialize(agree=st.booleans(), rates=st.tuples(RATES, RATES, RATES))
    def begin(self, agree: bool, rates: tuple[float, float, float]) -> None:
        self.clocks_agree = agree
        self.world.make_lease()
        for number, rate in enumerate(rates):
            self.places.append(self.host(rate, 0 if agree else (number - 1) * 3600.0))

    def host(self, rate: float, wall_s: float) -> Host:
        self.born += 1
        return Host(self.world, f"monitor_{self.born}", rate, wall_s)

    def check(self) -> None:
        valid = self.world.valid_hosts()
        assert len(valid) <= 1, "two may publish at a time"
        epochs = self.world.epochs
        assert epochs == sorted(set(epochs)), f"epochs do not grow: {epochs}"

    def may_forget(self, remembered: int) -> bool:
        """Clocks that disagree stand in for no memory: one of the two has to be left."""
        return self.clocks_agree or remembered >= max(self.world.epochs, default=0)

    @invariant()
    def laws(self) -> None:
        """Time goes on after each thing that happens, or little would come of it."""
        self.world.pass_time(1.0, self.check)

    @rule(seconds=SECONDS)
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds, self.check)

    @rule(at=HOSTS)
    def stop_or_go_on(self, at: int) -> None:
        self.places[at].stopped = not self.places[at].stopped

    @rule(at=HOSTS)
    def cut_off_or_heal(self, at: int) -> None:
        self.places[at].cut = not self.places[at].cut

    @rule(at=HOSTS)
    def lose_answers_or_heal(self, at: int) -> None:
        self.places[at].deaf = not self.places[at].deaf

    @rule(at=HOSTS)
    def hold_up_or_not(self, at: int) -> None:
        self.places[at].late = not self.places[at].late

    @rule()
    def arrive_late(self) -> None:
        self.world.arrive_late()

    @rule()
    def api_server_away_or_back(self) -> None:
        self.world.up = not self.world.up

    @rule(at=HOSTS, rate=RATES)
    def die_and_start_anew(self, at: int, rate: float) -> None:
        old = self.places[at]
        old.dead = True
        self.places[at] = self.host(rate, old.wall_s)

    @rule(at=HOSTS)
    def end_in_order(self, at: int) -> None:
        self.places[at].task.cancel()
        self.places[at].run()
        self.world.pass_time(1.0, self.check)
        self.die_and_start_anew(at, 1.0)

    @rule()
    def delete_lease(self) -> None:
        if self.may_forget(self.world.image_epoch):
            self.world.lease = None

    @rule()
    def make_lease(self) -> None:
        if self.world.lease is None:
            self.world.make_lease()

    @rule()
    def delete_and_make_again(self) -> None:
        self.delete_lease()
        self.make_lease()

    @rule()
    def wipe_image(self) -> None:
        lease = self.world.lease
        if self.may_forget(lease.epoch if lease else 0):
            self.world.image_epoch = 0

    @precondition(lambda self: not self.clocks_agree)
    @rule(at=HOSTS, seconds=st.sampled_from([-1e9, -3600.0, -1.0, 1.0, 3600.0, 1e9]))
    def jump(self, at: int, seconds: float) -> None:
        self.places[at].wall_s += seconds

    def teardown(self) -> None:
        try:
            if not self.places:
                return
            self.world.up = True
            self.make_lease()
            for host in self.places:
                host.stopped = host.cut = host.deaf = host.late = False
            self.world.arrive_late()
            self.world.pass_time(DURATION_S * 4, self.check)
            assert len(self.world.valid_hosts()) == 1, "nobody owns it, though all is well"
        finally:
            for host in self.world.hosts:
                host.close()


TestLeases = Leases.TestCase
TestLeases.settings = settings(
    max_examples=settings().max_examples // 12,
    # what fails is told at once; to make it smaller takes minutes: add Phase.shrink for that
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)


@pytest.mark.parametrize("trouble", ["cut", "deaf", "stopped", "late", "lease made again"])
def test_in_each_trouble_the_owner_is_followed_and_never_overlapped(trouble: str) -> None:
    """The slowest clock owns, the fastest waits."""
    world = LeaseWorld()
    world.make_lease()

    def check() -> None:
        assert len(world.valid_hosts()) <= 1
        assert world.epochs == sorted(set(world.epochs))

    try:
        owner = Host(world, "slow", 0.9, 3600.0)
        world.pass_time(DURATION_S * 3, check)
        assert world.valid_hosts() == [owner]
        Host(world, "fast", 1.1, -3600.0)
        world.pass_time(DURATION_S, check)
        if trouble == "lease made again":
            world.make_lease()
            owner.deaf = True
        else:
            setattr(owner, trouble, True)
        world.pass_time(DURATION_S * 4, check)
        assert len(world.epochs) > 1 and world.valid_hosts() != [owner]
        owner.stopped = owner.cut = owner.deaf = owner.late = False
        world.arrive_late()
        world.pass_time(DURATION_S * 4, check)
        assert len(world.valid_hosts()) == 1
    finally:
        for host in world.hosts:
            host.close()


def test_an_answer_that_lay_there_while_its_process_stood_still_makes_nobody_valid() -> None:
    """The renewal counts from when it was sent, not from when somebody had time to read of it."""
    world = LeaseWorld()
    world.make_lease()

    def check() -> None:
        assert len(world.valid_hosts()) <= 1

    try:
        owner = Host(world, "first", 1.0, 0.0)
        world.pass_time(DURATION_S * 3, check)
        other = Host(world, "second", 1.0, 0.0)
        world.pass_time(DURATION_S, check)
        assert world.valid_hosts() == [owner]
        while not world.is_asking(owner):
            world.pass_time(STEP_S, check)
        owner.stopped = True
        world.pass_time(DURATION_S * 3, check)
        assert world.valid_hosts() == [other]
        owner.stopped = False
        owner.run()
        check()
        world.pass_time(DURATION_S, check)
    finally:
        for host in world.hosts:
            host.close()


def record(**changes: object) -> LeaseRecord:
    values = {
        "uid": "u",
        "version": "1",
        "holder": "a",
        "epoch": 7,
        "duration_s": 4.0,
        "renewed": "t",
        "given_back": False,
    }
    return LeaseRecord(**{**values, **changes})


@pytest.fixture
def candidate() -> Iterator[Candidate]:
    found = Candidate(4.0)
    assert not found.may_take(record(), 100.0)
    yield found


def test_a_silent_holder_is_followed_after_its_duration(candidate: Candidate) -> None:
    assert not candidate.may_take(record(), 103.9)
    assert candidate.may_take(record(), 104.0)
    assert publishes_until(100.0, 4.0) < 104.0


def test_every_change_begins_the_wait_anew(candidate: Candidate) -> None:
    for change in ({"renewed": "later"}, {"uid": "another"}, {"epoch": 8}, {"holder": "b"}):
        assert not candidate.may_take(record(**change), 104.0)
        candidate = Candidate(4.0)
        assert not candidate.may_take(record(), 100.0)


def test_labels_and_other_writes_do_not(candidate: Candidate) -> None:
    assert candidate.may_take(record(version="9"), 104.0)


def test_the_holder_s_own_duration_counts() -> None:
    candidate = Candidate(1.0)
    assert not candidate.may_take(record(duration_s=10.0), 0.0)
    assert not candidate.may_take(record(duration_s=10.0), 9.0)
    assert candidate.may_take(record(duration_s=10.0), 10.0)


def test_a_long_time_without_a_look_proves_nothing(candidate: Candidate) -> None:
    assert not candidate.may_take(record(), 160.0)
    assert candidate.may_take(record(), 164.0)


def test_what_was_given_back_is_free_at_once() -> None:
    assert Candidate(4.0).may_take(record(holder="", given_back=True), 0.0)
    assert not Candidate(4.0).may_take(record(holder=""), 0.0)


def test_epochs_grow_over_every_memory() -> None:
    now = 1_790_000_000_000
    assert first_epoch(now * 10**6) == now
    assert first_epoch(-5) == first_epoch(2**80) == 0
    assert epoch_after(7, [3]) == 8
    assert epoch_after(7, [30]) == 31
    assert epoch_after(0, [now]) == now + 1
    # nobody wrote that
    assert epoch_after(2**62, [5]) == 6
