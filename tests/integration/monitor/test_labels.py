"""Numbers of enums and their labels, as others find them in the image at any time."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from drey_core.pages import PAGE_MASK
from drey_core.values import Kind, State
from drey_testing import leaks
from drey_testing.ca.ioc import Ioc
from drey_testing.fixtures_monitor import eventually

COUNT = 40
OLD, NEW = ("off", "on"), ("on", "off")
"""The machine stays on: as 1, as 0 after the labels were exchanged, and so on."""


def database(labels):
    zero, one = labels
    return "\n".join(
        f'record(bo,"SWITCH{i}"){{field(ZNAM,"{zero}") field(ONAM,"{one}") '
        f'field(VAL,"{labels.index("on")}") field(PINI,"YES")}}'
        for i in range(COUNT)
    )


@pytest.fixture
def switches(tmp_path):
    with leaks.keep_iocs(tmp_path), Ioc(tmp_path, database(OLD)) as ioc:
        yield ioc


class ImageReader:
    """Reads values and after them labels, over and over, as a snapshot does."""

    def __init__(self, rig) -> None:
        self._rig = rig
        self.channels = np.arange(256, 256 + COUNT)
        self.read_as: set[bytes] = set()
        self.numbers: set[int] = set()

    async def look(self):
        """How many are connected with a number."""
        pages, _ = await self._rig.image.read_pages([1])
        metadata = await self._rig.image.metadata_pages([1])
        labels = metadata[0].labels if metadata else {}
        rows = pages.columns_of_channels(self.channels)
        told = np.flatnonzero((rows.state == State.CONNECTED) & (rows.kind == Kind.ENUM))
        for i in told.tolist():
            texts = labels.get(int(self.channels[i]) & PAGE_MASK, ())
            number = int(rows.data[i])
            self.numbers.add(number)
            self.read_as.add(texts[number] if number < len(texts) else b"no label")
        return len(told)


@pytest.mark.parametrize("channel_access", ["aioca", "native"])
async def test_a_value_is_never_read_under_labels_that_it_did_not_have(
    rig, switches, channel_access
):
    rig.directory.set([(256 + i, f"SWITCH{i}") for i in range(COUNT)])
    # other metadata is written seldom: what is told of a number must not wait for that
    rig.start_monitor(CHANNEL_ACCESS=channel_access, METADATA_PERIOD="60")
    reader = ImageReader(rig)

    async def until(done):
        async with asyncio.timeout(240):
            while not done(await reader.look()):
                await asyncio.sleep(0)

    await until(lambda told: told == COUNT)
    assert reader.numbers == {1}
    switches.kill()
    await until(lambda told: told == 0)
    switches.start(database(NEW))
    await until(lambda told: told == COUNT)
    assert reader.numbers == {0, 1}
    assert reader.read_as == {b"on"}

    switches.shell('dbpf SWITCH7.ZNAM "run"')

    async def relabeled():
        (page,) = await rig.image.metadata_pages([1])
        return page.labels[7] == (b"run", b"off")

    await eventually(relabeled, "labels of a running IOC", timeout=45)
