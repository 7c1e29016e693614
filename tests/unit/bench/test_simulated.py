"""Channels without an IOC: as those of one, as far as a plan asks."""

import numpy as np

from bench.names import setpoints
from bench.simulated import MOVED, SAME, SimulatedTable
from drey_ca.eca import ECA_NORMAL
from drey_core.values import Kind, as_float64


async def test_half_of_the_setpoints_have_moved_and_records_say_what_records_say() -> None:
    names = setpoints(4)
    table = SimulatedTable(4)
    slots = await table.add_channels(names)
    fields = await table.add_channels(
        [f"{names[0]}.{field}" for field in ("DISP", "DISA", "DISV", "NAME$")]
    )
    asked = np.concatenate([fields[::-1], slots])
    assert (await table.wait_connected(asked, 1)).all()
    reading = await table.read_values(asked, 1)
    values = reading.values
    assert (reading.code == ECA_NORMAL).all()
    assert values.heap_bytes(0).decode() == names[0]
    numbers = as_float64(values.kind, values.data)[1:].tolist()
    assert numbers == [1.0, 0.0, 0.0, MOVED, MOVED, SAME, SAME]
    assert table.read_info(asked).kind.tolist() == [Kind.STRING] + [Kind.FLOAT64] * 7
