"""What is said of clocks that differ, and of channels that are away.

That clocks never count is tested where freshness is.
"""

import numpy as np

from drey.system.v1 import system_service_pb2 as pb
from drey_core.pages import PAGE_SHIFT, PAGE_SLOTS, Pages, shard_of_page
from drey_core.values import State
from drey_gateway import mapping
from drey_gateway.domain import findings
from drey_gateway.domain.health import SIGNS_COMPARED, ShardHealth
from drey_gateway.domain.instances import SILENT_AFTER_NS, InstanceBook, InstanceSign
from drey_gateway.domain.live import LiveState, Shard
from drey_gateway.loops import feed
from drey_runtime.auth import LIFETIME_S, SKEW_S
from drey_testing.fixtures_gateway import catalog_pages, floats, name_of, setpoint

SECOND = 10**9


def test_clocks_that_differ_are_told_with_both_hosts() -> None:
    shards = [Shard(n) for n in range(3)]
    for shard, owner, skew in zip(shards, ("a:1", "b:2", "b:3"), (SECOND // 2, 8, -9), strict=True):
        shard.report.owner = owner
        shard.health.note_heard(0)
        shard.health.note_sync(True, 0)
        shard.health.clock.ahead_ns = skew * (SECOND if abs(skew) < 100 else 1)
    book = InstanceBook()
    (told,) = findings.of_clocks(shards, book, 0, "gate")
    assert "of b is 9.0 s behind that of gate" in told.text
    assert "b and gate" in told.remedy
    shards[2].health.clock.ahead_ns = 0
    (told,) = findings.of_clocks(shards, book, 0, "gate")
    assert "of b is 8.0 s ahead of that of gate" in told.text
    assert (told.code, told.subject) == (findings.Code.CLOCK_SKEW, findings.Subject("host", "b"))


def test_the_clock_of_every_service_is_compared() -> None:
    """The snapshot service refuses the gateway's tokens as well as a monitor's."""
    book = InstanceBook()

    def note(name: str, skew: int, now: int) -> None:
        sign = InstanceSign("snapshot", name, "1", 1, True, (), 0, (), (), sent_ns=now + skew)
        book.note_sign(sign, now, now)

    for second in range(1, SIGNS_COMPARED + 1):
        note("here:1", 0, second * SECOND)
        note("there:1", -3600 * SECOND, second * SECOND)
    last = SIGNS_COMPARED * SECOND
    (told,) = findings.of_clocks([], book, last, "gate")
    assert "of there is 3600.0 s behind that of gate" in told.text
    assert told.subject == findings.Subject("host", "there")
    assert f"from {LIFETIME_S + SKEW_S} s on" in told.text
    assert findings.of_clocks([], book, last + 2 * SILENT_AFTER_NS, "gate") == []
    note("there:1", 0, last)
    assert findings.of_clocks([], book, last, "gate") == []


def test_messages_that_were_late_are_no_clock_that_is_behind() -> None:
    health = ShardHealth(0)
    for late in (0, 5, 3, 9):
        health.compare_clocks("a", 100 * SECOND, (100 + late) * SECOND)
        assert health.clock.ahead_ns == 0
    # all that came of late say the same: a clock that was set back is seen
    for _ in range(SIGNS_COMPARED):
        health.compare_clocks("a", 98 * SECOND, 100 * SECOND)
    assert health.clock.is_told and health.clock.ahead_ns == -2 * SECOND
    # another host has another clock, and one that is ahead is seen at once
    health.compare_clocks("b", 100 * SECOND, 100 * SECOND)
    assert health.clock.ahead_ns == 0
    health.compare_clocks("b", 103 * SECOND, 100 * SECOND)
    assert health.clock.ahead_ns == 3 * SECOND


def test_channels_that_are_away_are_named() -> None:
    """Ten of them at most, and of the shard and the state that the finding is about."""
    live = LiveState(2)
    pages = catalog_pages(400)
    live.take_directory(pages, [], np.array([p.number for p in pages]), 1)
    gone = {
        (shard, state): [
            pv
            for pv in range(1, 401)
            if shard_of_page(setpoint(pv) >> PAGE_SHIFT, 2) == shard and pv % 40 == state
        ]
        for shard in (0, 1)
        for state in (State.NEVER_CONNECTED, State.DISCONNECTED)
    }
    for shard in (0, 1):
        mine = live.pages_of(shard)
        ones = np.ones(len(mine), np.uint64)
        ages = np.zeros((len(mine), PAGE_SLOTS), np.uint16)
        live.resynchronise_shard(shard, Pages.empty_pages(mine), ones, ones, 1, ages)
    for (_, state), pvs in gone.items():
        columns = floats([setpoint(pv) for pv in pvs], [0.0] * len(pvs))
        columns.state[:] = state
        live.image.apply_batch(columns, 1, 2)
    # a channel that no PV has any more is not named
    columns = floats([setpoint(401)], [0.0])
    columns.state[:] = State.NEVER_CONNECTED
    live.image.apply_batch(columns, 1, 2)
    for (shard, state), pvs in gone.items():
        assert live.pvs_in(shard, state, 3) == [name_of(pv) for pv in pvs[:3]]
        assert live.pvs_in(shard, state, 100) == [name_of(pv) for pv in pvs]
    assert live.pvs_in(0, State.UNSUPPORTED, 10) == []
    live.shards[1].report.never_connected = 5
    found = findings.of_shards(
        live.shards, {0: "away"}, lambda shard, state: live.pvs_in(shard, state, 2)
    )
    first, second = (name_of(pv) for pv in gone[1, State.NEVER_CONNECTED][:2])
    stale, never = found
    assert (stale.code, stale.subject) == (
        findings.Code.SHARD_STALE,
        findings.Subject("shard", 0),
    )
    assert never.pvs == (first, second)
    assert never.text == (
        f"5 channels of shard 1 have never connected, among them of {first}, {second}"
    )


def test_since_when_each_finding_is_found() -> None:
    since = findings.Since()
    one, other = findings.of_parts([("redis", False, "refused"), ("nats", False, "refused")])
    assert since.times_first_seen([one], 5) == [5]
    assert since.times_first_seen([other, one], 6) == [6, 5]
    assert since.times_first_seen([other], 7) == [6]
    assert since.times_first_seen([one, other], 8) == [8, 6]


def test_codes_and_levels_are_those_of_the_contracts() -> None:
    for ours, theirs, prefix in (
        (findings.Code, pb.FindingCode, "FINDING_CODE_"),
        (findings.Level, pb.FindingLevel, "FINDING_LEVEL_"),
    ):
        contract = {name.removeprefix(prefix): number for name, number in theirs.items() if number}
        assert contract == {each.name: int(each) for each in ours}


def test_silence_is_told_within_two_seconds() -> None:
    """Of the last sign of life, with one look of the feed in between."""
    health = ShardHealth(0)
    health.note_heard(0)
    look = int(feed.TICK_S * SECOND)
    assert health.why_stale(2 * SECOND - look, True) == "monitor of shard 0 is silent"


def test_an_age_and_a_tick_are_told_only_of_who_was_heard_of() -> None:
    shard = Shard(0)
    assert not mapping.shard_state(0, shard, False, 5_000_000_000).HasField("age")
    assert not mapping.shard_status(0, shard, False, 5_000_000_000).HasField("tick")
    shard.health.note_heard(3_000_000_000)
    shard.report.tick_ms = 100
    told = mapping.shard_status(0, shard, True, 5_000_000_000)
    assert (told.state.age.ToMilliseconds(), told.tick.ToMilliseconds()) == (2000, 100)
