"""Setpoints and readbacks have pages of their own, and shards share both."""

import numpy as np
import pytest

from drey_core.directory import ROLE_READBACK, ROLE_SETPOINT
from drey_core.pages import shard_of_page
from drey_snapshot.catalog.domain.pages import channel_numbers, last_page

N = 20_000


def pages(role: int) -> np.ndarray:
    return channel_numbers(role, np.arange(N)) >> 8


def test_no_number_is_given_twice_and_none_is_zero() -> None:
    both = np.concatenate(
        [channel_numbers(role, np.arange(N)) for role in (ROLE_SETPOINT, ROLE_READBACK)]
    )
    assert len(np.unique(both)) == 2 * N
    assert both.min() >= 256


def test_numbers_ascend_and_pages_are_never_shared() -> None:
    for role in (ROLE_SETPOINT, ROLE_READBACK):
        assert (np.diff(channel_numbers(role, np.arange(N))) > 0).all()
    assert not set(pages(ROLE_SETPOINT)) & set(pages(ROLE_READBACK))


@pytest.mark.parametrize("shards", [2, 3, 4, 8])
def test_shards_share_setpoints_and_readbacks(shards: int) -> None:
    for role in (ROLE_SETPOINT, ROLE_READBACK):
        load = np.bincount(shard_of_page(pages(role), shards), minlength=shards)
        assert load.min() > 0.8 * N / shards


@pytest.mark.parametrize("setpoints", [0, 1, 255, 256, 257, 1000, 5000])
@pytest.mark.parametrize("readbacks", [0, 1, 256, 513, 4000])
def test_the_last_page_holds_the_last_channel(setpoints: int, readbacks: int) -> None:
    given = [
        channel_numbers(role, np.arange(n))
        for role, n in ((ROLE_SETPOINT, setpoints), (ROLE_READBACK, readbacks))
    ]
    highest = max((int(g[-1] >> 8) for g in given if len(g)), default=0)
    assert highest <= last_page(setpoints, readbacks) <= highest + 1
