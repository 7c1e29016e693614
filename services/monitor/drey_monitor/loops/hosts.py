"""Hosts of the lists of addresses that could not be resolved when the process began."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence

from drey_ca.addresses import resolve_hosts, unresolved_hosts, write_numbers
from drey_runtime.retrying import backoff_delay

log = logging.getLogger(__name__)

_LOOKUP_S = 5.0
_LONGEST_PAUSE_S = 10.0
Resolve = Callable[[Sequence[str], float], Awaitable[Mapping[str, str]]]


class HostsFound(Exception):
    """Channel Access has to begin anew with them: the process is to end and be started again."""


class HostWatch:
    """Looks for their addresses: libca itself never looks again once it has made a channel."""

    def __init__(self, has_searched: Callable[[], bool], resolve: Resolve = resolve_hosts) -> None:
        """`has_searched`: whether a channel was made already."""
        self._has_searched, self._resolve = has_searched, resolve

    async def run(self) -> None:
        """Look for ever. Raises `HostsFound` where it is too late to tell libca."""
        looks = 0
        while hosts := unresolved_hosts():
            await asyncio.sleep(backoff_delay(looks, first_s=1.0, cap_s=_LONGEST_PAUSE_S))
            looks += 1
            found = await self._resolve(hosts, _LOOKUP_S)
            write_numbers(found)
            if found and self._has_searched():
                raise HostsFound(f"{', '.join(found)}: resolved only after the first search")
        await asyncio.Event().wait()
