"""Lie to a channel table for a while: `python -m drey_testing.ca.fuzz --seconds 20 --seed 1`.

Fake servers tell a table in a process of its own what `mutations` makes of honest answers. The run
fails when that process dies, falls silent, needs more than a second to close, or when a value of a
channel that was not lied about is not one that its server sent. The seed fixes what is said, not
when: threads decide that.

`--fatal` says what libca itself does not survive (see `mutations`), to see it happen: the run fails
then. No table can prevent it, and the bounded run in the tests leaves it out.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import struct
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from drey_testing.ca import wire
from drey_testing.ca.fake_server import FakeServer
from drey_testing.ca.ioc import use_loopback
from drey_testing.ca.mutations import Said, fitting
from drey_testing.ca.wire import FakeChannel, Message

LIARS = 3
HONEST = 40
"""Channels on each server that nobody lies about."""

ROW = 20
_PERIOD = 0.05
_SILENCE = 10.0
_LIE_EACH = 3
_BREAK_EACH = 400
LYING = [(native, count) for native in range(7) for count in (1, 50)]


@dataclass
class Liar:
    """The script of one server: lies about the names that begin with `LIE`."""

    random: Random
    fatal: bool
    only: str = ""
    told: Counter[str] = field(default_factory=Counter)

    def __call__(self, message: Message, name: str) -> Said:
        """Honest, mutated, or fatal to the connection."""
        if not name.startswith("LIE") or self.random.randrange(_LIE_EACH):
            return [message]
        breaking = not self.random.randrange(_BREAK_EACH)
        mutation = self.random.choice(fitting(message, breaking=breaking, fatal=self.fatal))
        if self.only not in mutation.__name__:
            return [message]
        self.told[mutation.__name__] += 1
        return mutation(self.random, message)


def names(server: int) -> tuple[list[str], list[str]]:
    """The names of a server that are lied about, and those that are not."""
    lying = [f"LIE:{server}:{native}:{count}" for native, count in LYING]
    return lying, [f"TRUE:{server}:{i}" for i in range(HONEST)]


def channels(server: int) -> dict[str, FakeChannel]:
    """What a server has."""
    lying, honest = names(server)
    out: dict[str, FakeChannel] = {}
    for name, (native, count) in zip(lying, LYING, strict=True):
        out[name] = FakeChannel(
            native, b"\1" * wire.SIZE[native] * count, count, units=b"mA", labels=(b"off", b"on")
        )
    for i, name in enumerate(honest):
        row = i % 2
        out[name] = FakeChannel(value=true_value(i, 0), capacity=ROW if row else 1)
    return out


def true_value(i: int, turn: int) -> bytes:
    """What honest channel i says: every number of it tells i, and odd ones have twenty."""
    value = float(turn * HONEST + i)
    return struct.pack(">d", value) * (ROW if i % 2 else 1)


async def serve(seconds: float, seed: int, implementation: str, fatal: bool, only: str = "") -> str:
    """Run; what went wrong, or nothing."""
    use_loopback()
    liars = [Liar(Random(f"{seed}/{server}"), fatal, only) for server in range(LIARS)]
    async with AsyncExitStack() as stack:
        servers = [
            await stack.enter_async_context(FakeServer(channels(i), liar))
            for i, liar in enumerate(liars)
        ]
        servers.append(await stack.enter_async_context(FakeServer(channels(LIARS))))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        log = stack.enter_context((folder / "victim.log").open("w+b"))
        victim = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "faulthandler", "-m", "drey_testing.ca.fuzz_victim"),
            *(implementation, str(LIARS + 1)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=log,
        )
        try:
            wrong, last = await _watch_victim(victim, servers, seconds)
        finally:
            if victim.returncode is None:
                victim.kill()
                await victim.wait()
        told = sum((liar.told for liar in liars), Counter[str]())
        print(json.dumps({"seed": seed, "told": dict(told), "victim": last}))
        if wrong:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 6_000))
            print(log.read().decode("utf-8", "replace"), file=sys.stderr)
    return wrong or _idle_reason(told, last)


async def _watch_victim(
    victim: asyncio.subprocess.Process, servers: list[FakeServer], seconds: float
) -> tuple[str, dict[str, int]]:
    """Feed the victim; what went wrong, and what it said last."""
    assert victim.stdin is not None and victim.stdout is not None
    posting = asyncio.ensure_future(_post_values(servers))
    last: dict[str, int] = {}
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end:
            async with asyncio.timeout(_SILENCE):
                line = await victim.stdout.readline()
            if not line:
                return f"the table's process died: {await victim.wait()}", last
            last = json.loads(line)
        victim.stdin.close()
        async with asyncio.timeout(_SILENCE):
            while line := await victim.stdout.readline():
                last = json.loads(line)
            code = await victim.wait()
    except TimeoutError:
        victim.send_signal(signal.SIGABRT)  # to learn from its stacks where it hangs
        await victim.wait()
        return f"the table's process said nothing for {_SILENCE} s", last
    finally:
        posting.cancel()
        await asyncio.wait([posting])
        if not posting.cancelled():
            posting.result()
    return (f"the table's process ended with {code}" if code else ""), last


async def _post_values(servers: list[FakeServer]) -> None:
    turn = 0
    while True:
        turn += 1
        for server, each in enumerate(servers):
            lying, honest = names(server)
            for i, name in enumerate(honest):
                each.channels[name].value = true_value(i, turn)
            each.post(*honest[: HONEST // 2], *lying, *honest[HONEST // 2 :])
        await asyncio.sleep(_PERIOD)


def _idle_reason(told: Counter[str], last: dict[str, int]) -> str:
    if not told or not last.get("checked"):
        return f"nothing was tried: {dict(told)}, {last}"
    return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--implementation", default="auto", choices=["auto", "aioca", "native"])
    parser.add_argument("--fatal", action="store_true", help="also what kills libca itself")
    parser.add_argument("--only", default="", help="the mutations with this in their name")
    options = parser.parse_args()
    wrong = asyncio.run(
        serve(options.seconds, options.seed, options.implementation, options.fatal, options.only)
    )
    if wrong:
        sys.exit(f"seed {options.seed}: {wrong}")


if __name__ == "__main__":
    main()
