"""What the gateway makes of the signs of life of all processes."""

from drey_core.iocs import CLOSED, OPEN, DoubleName, IocState
from drey_gateway.domain import findings
from drey_gateway.domain.findings import Code, Subject
from drey_gateway.domain.instances import InstanceBook, InstanceSign, Queue

SECOND = 10**9


def sign(service="monitor", name="a:1", iocs=(), version="1", **more):
    fields = {"started_ns": 1, "serving": True, "queues": (), "doubles": ()} | more
    count = fields.pop("ioc_count", len(iocs))
    return InstanceSign(service, name, version, iocs=iocs, ioc_count=count, **fields)


def codes(book, now=0):
    return {(f.code, f.subject) for f in findings.of_instances(book, now)}


def test_iocs_are_added_up_over_the_monitors_and_those_in_trouble_come_first():
    book = InstanceBook()
    book.note_sign(
        sign(
            iocs=[
                IocState("x:1", 10, 10, 0, 5_000),
                IocState("y:1", 3, 0),
                IocState("z:1", 2, 2, 4, 0, silent_since_ns=70),
            ]
        ),
        0,
    )
    book.note_sign(sign(name="b:1", iocs=[IocState("x:1", 5, 4, 1, 9_000)]), 0)
    book.note_sign(sign("snapshot", "s:1", [IocState("x:1", 99, 99, 2, breaker=CLOSED)]), 0)
    down, silent, x = book.ioc_summaries(0)
    assert (down.address, down.is_down) == ("y:1", True)
    assert (silent.address, silent.silent_since_ns, silent.timeouts) == ("z:1", 70, 4)
    # channels are those of the monitors, time-outs those of all
    assert (x.channels, x.connected, x.timeouts, x.echo_ns) == (15, 14, 3, 9_000)
    assert not x.has_trouble
    assert codes(book) == {
        (Code.IOC_DOWN, Subject("ioc", "y:1")),
        (Code.IOC_SILENT, Subject("ioc", "z:1")),
    }


def test_an_open_breaker_is_told_with_its_process():
    book = InstanceBook()
    state = IocState("x:1", 9, 9, 7, breaker=OPEN, breaker_since_ns=5, next_probe_ns=9)
    book.note_sign(sign("restore", "r:1", [state]), 0)
    (ioc,) = book.ioc_summaries(0)
    assert [(b.service, b.instance, b.state) for b in ioc.breakers] == [("restore", "r:1", state)]
    (found,) = findings.of_instances(book, 0)
    assert (found.code, found.subject) == (Code.BREAKER_OPEN, Subject("ioc", "x:1"))
    assert "restore (r:1)" in found.text


def test_an_instance_that_is_silent_is_not_listed_nor_what_it_said():
    book = InstanceBook()
    book.note_sign(sign(iocs=[IocState("x:1", 1, 0)]), 0)
    book.note_sign(sign("gateway", "g:1"), 4 * SECOND)
    assert [i.sign.service for i in book.living_instances(5 * SECOND)] == ["gateway", "monitor"]
    assert [i.sign.service for i in book.living_instances(6 * SECOND)] == ["gateway"]
    assert book.ioc_summaries(6 * SECOND) == [] and codes(book, 6 * SECOND) == set()


def test_iocs_come_some_at_a_time_and_those_that_went_are_forgotten():
    book = InstanceBook()
    book.note_sign(sign(iocs=[IocState("a", 1, 1), IocState("b", 1, 1)], ioc_count=3), 0)
    book.note_sign(sign(iocs=[IocState("c", 1, 1)], ioc_count=3), 0)
    assert [ioc.address for ioc in book.ioc_summaries(0)] == ["a", "b", "c"]
    book.note_sign(sign(iocs=[IocState("b", 1, 1)], ioc_count=2), 0)
    book.note_sign(sign(iocs=[IocState("c", 1, 1)], ioc_count=2), 0)
    assert [ioc.address for ioc in book.ioc_summaries(0)] == ["b", "c"]


def test_a_pv_at_two_iocs_is_told_with_both():
    book = InstanceBook()
    book.note_sign(sign(doubles=[DoubleName("PV", "x:1", "y:1", 9)]), 0)
    book.note_sign(sign(name="b:1", doubles=[DoubleName("PV", "y:1", "x:1", 4)]), 0)
    (found,) = findings.of_instances(book, 0)
    assert (found.code, found.subject) == (Code.SERVED_TWICE, Subject("pv", "PV"))
    assert "x:1" in found.text and "y:1" in found.text and found.pvs == ("PV",)


def test_versions_that_differ_and_queues_that_drop():
    book = InstanceBook()
    book.note_sign(sign(version="1", queues=[Queue("batches", 0, 16, 3)]), 0)
    book.note_sign(sign(name="b:1", version="2"), 0)
    told = codes(book)
    assert (Code.VERSIONS_DIFFER, Subject("part", "monitor")) in told
    # what was dropped before the gateway came is no news
    assert (Code.QUEUE_FULL, Subject("instance", "a:1")) not in told
    for now in range(0, 70, 4):
        dropped = 3 if now == 0 else 5
        book.note_sign(sign(version="1", queues=[Queue("batches", 0, 16, dropped)]), now * SECOND)
        full = Subject("instance", "a:1") in {s for _, s in codes(book, now * SECOND)}
        assert full == (0 < now <= 64)


def test_it_is_bounded():
    book = InstanceBook()
    for number in range(3000):
        book.note_sign(sign(name=str(number)), 0)
    assert len(book.living_instances(0)) == 1000


def test_channels_that_hung_are_told_until_ten_minutes_after_the_last():
    book = InstanceBook()
    subject = (Code.CHANNELS_HUNG, Subject("ioc", "x:1"))

    def note(second, **state):
        book.note_sign(sign(iocs=[IocState("x:1", 9, 9, **state)]), second * SECOND)
        return {f.level for f in findings.of_instances(book, second * SECOND) if f.subject}

    # what was reconnected before the gateway heard of the monitor is nothing new
    assert note(0, reconnected=3) == set()
    assert note(10, reconnected=3, hung=2) == {findings.Level.WARNING}
    (found,) = findings.of_instances(book, 10 * SECOND)
    assert (found.code, found.subject) == subject and "2 have none yet" in found.text
    (ioc,) = book.ioc_summaries(10 * SECOND)
    assert (ioc.hung, ioc.reconnected, ioc.has_trouble) == (2, 3, True)
    assert note(20, reconnected=5) == {findings.Level.INFO}
    assert not book.ioc_summaries(20 * SECOND)[0].has_trouble
    assert note(619, reconnected=5) == {findings.Level.INFO}
    assert note(621, reconnected=5) == set()


def test_a_shard_with_too_few_warm_standbys_is_found_and_who_they_are_is_told():
    book = InstanceBook()
    book.note_sign(sign(standbys_asked=1), 0)
    book.note_sign(sign(name="b:1", standbys={0: True, 1: False}, standbys_asked=1), 0)
    assert book.standbys(0) == {0: [("b:1", True)], 1: [("b:1", False)]}
    found = findings.of_standbys(book, 3, 0)
    assert [f.subject for f in found] == [Subject("shard", 1), Subject("shard", 2)]
    assert all(f.code == Code.STANDBY_MISSING and f.remedy for f in found)
    assert "0 of 1 warm standbys, 1 more connect" in found[0].text
    # where none were asked for nothing is missing, nor where nobody is heard
    other = InstanceBook()
    other.note_sign(sign(), 0)
    assert findings.of_standbys(other, 3, 0) == []
    assert findings.of_standbys(book, 3, 6 * SECOND) == []
