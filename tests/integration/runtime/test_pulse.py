"""Who lives is judged by change, on the reader's own clock."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from drey.events.v1.values_pb2 import Heartbeat
from drey_core.signs import SignsOfLife
from drey_runtime.image import Image
from drey_runtime.pulse import Pulses
from drey_stack import Valkey

HOUR = 3600 * 10**9


@pytest.fixture
async def image(tmp_path: Path) -> AsyncIterator[Image]:
    async with Valkey(tmp_path / "valkey") as part, Image.open_image(part.url, "test") as found:
        yield found


@pytest.mark.parametrize("ahead_ns", [-HOUR, 0, HOUR])
async def test_what_a_reader_finds_is_old_until_it_changes(image: Image, ahead_ns: int) -> None:
    beat = Heartbeat(shard=0, epoch=1, sequence=1, time_ns=time.time_ns() + ahead_ns)
    await image.write_heartbeat(beat)
    pulses = Pulses(image, 2)
    assert await pulses.read_pulses() == [(beat, None), (None, None)]
    looking = asyncio.create_task(pulses.run())
    beat.time_ns += 1
    await image.write_heartbeat(beat)
    while True:
        ((found, age), _) = await pulses.read_pulses()
        assert found == beat
        if age is not None and age > 10**9:
            break
        await asyncio.sleep(0.05)
    # seen once, and silent since
    looking.cancel()
    await asyncio.gather(looking, return_exceptions=True)


def test_a_reader_that_did_not_look_cannot_tell_when() -> None:
    signs, second = SignsOfLife(), 10**9
    signs.see_sign(0, "a", 0)
    assert signs.age_ns(0, 1) is None
    signs.see_sign(0, "b", second)
    assert signs.age_ns(0, 3 * second) == 2 * second
    signs.see_sign(0, "c", 100 * second)
    assert signs.age_ns(0, 100 * second) == 99 * second
    signs.see_sign(0, "d", 101 * second)
    assert signs.age_ns(0, 101 * second) == 0
