import pytest

from drey_core.errors import ResourceExhausted
from drey_runtime.admission import Admission, Bounds, CallRate, Room, host_of


def test_a_rate_lets_a_burst_through_then_one_at_a_time() -> None:
    rate = CallRate(10.0, 2.0)
    assert [rate.count_call("a", 0.0) for _ in range(20)] == [0.0] * 20
    assert rate.count_call("a", 0.0) == pytest.approx(0.1)
    assert rate.count_call("b", 0.0) == 0.0
    assert rate.count_call("a", 0.1) == 0.0
    assert rate.count_call("a", 0.1) > 0
    assert [rate.count_call("a", 100.0) for _ in range(20)] == [0.0] * 20


def test_a_rate_remembers_a_bounded_number() -> None:
    rate = CallRate(1.0, 1.0)
    for n in range(20_000):
        rate.count_call(str(n), 0.0)
    assert len(rate._buckets) <= 4096


def test_one_holder_has_no_more_than_a_share() -> None:
    room = Room("calls", 10, 0.5)
    held = [room.take_place("a", "this key") for _ in range(6)]
    for place in held[:5]:
        place.__enter__()
    with pytest.raises(ResourceExhausted, match="this key has 5 calls") as caught:
        held[5].__enter__()
    assert caught.value.metadata == {"limit": "5", "scope": "caller"}
    assert caught.value.retry_after_s > 0
    others = [room.take_place(str(n), "this key") for n in range(6)]
    for place in others[:5]:
        place.__enter__()
    with pytest.raises(ResourceExhausted, match="this server serves 10 calls"):
        others[5].__enter__()
    held[0].__exit__(None, None, None)
    with room.take_place("a", "this key"):
        assert room.taken == 10
    for place in (*held[1:5], *others[:5]):
        place.__exit__(None, None, None)
    assert room.taken == 0 and not room._held


def test_guesses_from_one_address_are_counted_apart_from_those_of_others() -> None:
    admission = Admission(Bounds(refused_per_s=1.0))
    for _ in range(10):
        admission.count_refused("ipv4:10.0.0.1", 0.0)
    with pytest.raises(ResourceExhausted) as caught:
        admission.count_refused("ipv4:10.0.0.1", 0.0)
    assert caught.value.retry_after_s == pytest.approx(1.0)
    admission.count_refused("ipv4:10.0.0.2", 0.0)


@pytest.mark.parametrize(
    ("peer", "host"),
    [
        ("ipv4:127.0.0.1:4711", "ipv4:127.0.0.1"),
        ("ipv6:[::1]:4711", "ipv6:[::1]"),
        ("ipv6:%5B::1%5D:4711", "ipv6:%5B::1%5D"),
        ("unix:/run/drey.sock", "unix"),
        ("unix:", "unix"),
    ],
)
def test_a_peer_is_its_address_without_the_port(peer: str, host: str) -> None:
    assert host_of(peer) == host
