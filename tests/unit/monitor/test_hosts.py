"""Hosts of IOCs whose names could not be resolved when the monitor began."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence

import pytest

from drey_ca import addresses
from drey_monitor.loops import hosts
from drey_monitor.loops.hosts import HostsFound, HostWatch

LIST = "EPICS_CA_ADDR_LIST"


class Names:
    """A name service that knows of a host from the second question on."""

    def __init__(self) -> None:
        self.asked = 0
        self.answered = asyncio.Event()

    async def resolve(self, names: Sequence[str], timeout_s: float) -> Mapping[str, str]:
        assert names == ["late"]
        self.asked += 1
        if self.asked == 1:
            return {}
        self.answered.set()
        return {"late": "10.0.0.9"}


@pytest.fixture(autouse=True)
def listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIST, "10.0.0.1:5064 late:5066")
    monkeypatch.setenv("EPICS_CA_NAME_SERVERS", "")
    monkeypatch.setattr(addresses, "_replaced", {})
    monkeypatch.setattr(hosts, "backoff_delay", lambda *_, **__: 0.0)


async def test_one_that_is_found_before_the_first_search_is_written_for_libca() -> None:
    names = Names()
    task = asyncio.create_task(HostWatch(lambda: False, names.resolve).run())
    await names.answered.wait()
    while os.environ[LIST] != "10.0.0.1:5064 10.0.0.9:5066":
        assert not task.done()
        await asyncio.sleep(0)
    assert addresses.given_variable(LIST) == "10.0.0.1:5064 late:5066"
    assert names.asked == 2
    task.cancel()


async def test_one_that_is_found_after_it_has_the_process_begin_anew() -> None:
    with pytest.raises(HostsFound, match="late"):
        await HostWatch(lambda: True, Names().resolve).run()


async def test_numbers_and_names_that_resolve_are_told_apart_from_others() -> None:
    lists = {LIST: "10.0.0.1 localhost:1 nobody.invalid localhost", "EPICS_CA_NAME_SERVERS": "x:2"}
    assert addresses.host_names(lists) == ["localhost", "nobody.invalid", "x"]
    found = await addresses.resolve_hosts(["localhost", "nobody.invalid"], 60)
    assert found == {"localhost": "127.0.0.1"}
