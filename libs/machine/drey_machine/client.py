"""An independent CA client: bulk reads and writes through aioca, in a process of their own.

libca reads its environment when it is first used, so a process can talk to one machine only;
nothing here is to be imported where another machine, or an IOC, lives.
"""

import json
import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drey_machine.plant import MAGNET, Plant


def describe_machine(folder: Path) -> dict[str, Any]:
    """The running machine's `machine.json`; FileNotFoundError when none is ready there."""
    content: dict[str, Any] = json.loads((folder / "machine.json").read_bytes())
    return content


def use_machine(folder: Path) -> Plant:
    """Point this process's CA client at the machine in `folder`."""
    machine = describe_machine(folder)
    for key in [key for key in os.environ if key.startswith("EPICS_")]:
        del os.environ[key]
    os.environ.update(machine["env"])
    return Plant(machine["pvs"], machine["seed"])


async def read_channels(names: Sequence[str], seconds: float = 20.0) -> dict[str, dict[str, Any]]:
    """Read channels: name → value, severity, status, time_ns; or name → error.

    A value is a number, a string (bytes that aren't UTF-8 replaced, as aioca does), or a list;
    64-bit integers come as the doubles that Channel Access makes of them.
    """
    import aioca

    results = await aioca.caget(list(names), format=aioca.FORMAT_TIME, timeout=seconds, throw=False)
    return {name: _result_row(result) for name, result in zip(names, results, strict=True)}


def _result_row(result: Any) -> dict[str, Any]:
    if not result.ok:
        return {"error": str(result)}
    seconds, nanoseconds = result.raw_stamp
    return {
        "value": _plain_value(result),
        "severity": int(result.severity),
        "status": int(result.status),
        "time_ns": int(seconds) * 1_000_000_000 + int(nanoseconds),
    }


def _plain_value(value: Any) -> Any:
    """The value without aioca's additions to it."""
    for kind in (str, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value.tolist()


async def write_channels(values: dict[str, Any], seconds: float = 20.0) -> dict[str, str]:
    """Write channels with completion: name → "" or what went wrong."""
    import aioca

    names = list(values)
    results = await aioca.caput(
        names, [values[name] for name in names], wait=True, timeout=seconds, throw=False
    )
    return {n: "" if r.ok else str(r) for n, r in zip(names, results, strict=True)}


async def disturb_plant(plant: Plant, count: int, seed: int, seconds: float = 20.0) -> list[str]:
    """Move `count` magnets by 1 to 5 A, each, within their limits; returns their setpoints.

    ValueError when there are fewer magnets; RuntimeError when a write fails.
    """
    import aioca

    chooser = random.Random(seed)
    magnets = plant.names(MAGNET)
    if count > len(magnets):
        raise ValueError(f"count: {count} is more than the {len(magnets)} magnets there are")
    names = chooser.sample(magnets, count)
    old = await aioca.caget(names, timeout=seconds)
    steps = [chooser.choice((-1, 1)) * chooser.uniform(1, 5) for _ in names]
    new = [float(o) + (s if abs(o + s) <= 99 else -s) for o, s in zip(old, steps, strict=True)]
    results = await aioca.caput(names, new, wait=True, timeout=seconds, throw=False)
    failed = [result for result in results if not result.ok]
    if failed:
        raise RuntimeError(f"{len(failed)} of {count} writes failed, the first: {failed[0]}")
    return names
