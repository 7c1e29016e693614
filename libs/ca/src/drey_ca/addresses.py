"""Host names in the lists of addresses of Channel Access, as numbers.

libca resolves names when its context makes its first channel, which waits for the resolver as long
as that takes, and forgets for ever what could not be resolved then.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
from collections.abc import Mapping, Sequence

_LISTS = ("EPICS_CA_ADDR_LIST", "EPICS_CA_NAME_SERVERS")

_replaced: dict[str, tuple[str, str]] = {}
"""Variables in which names were replaced: as they are since then, and as they were."""


def given_variable(name: str) -> str | None:
    """A variable of the process's environment, as it was before `write_numbers`."""
    value = os.environ.get(name)
    written, given = _replaced.get(name, (None, None))
    return given if value is not None and value == written else value


def given_lists() -> dict[str, str]:
    """The lists of the process's environment, likewise; those that are not set are left out."""
    lists = {name: given_variable(name) for name in _LISTS}
    return {name: text for name, text in lists.items() if text is not None}


def write_numbers(numbers: Mapping[str, str]) -> None:
    """Replace host names in the lists of the process's environment, before libca reads them."""
    for name, given in given_lists().items():
        parts = [_split_address(entry) for entry in given.split()]
        if any(host in numbers for host, _ in parts):
            os.environ[name] = " ".join(numbers.get(host, host) + port for host, port in parts)
            _replaced[name] = os.environ[name], given


def _split_address(address: str) -> tuple[str, str]:
    """Host and port of an entry; the port as it is written, with its colon, or empty."""
    host, colon, port = address.partition(":")
    return host, colon + port


def host_names(lists: Mapping[str, str]) -> list[str]:
    """Hosts that are written as names, each once."""
    entries = [entry for text in lists.values() for entry in text.split()]
    hosts = dict.fromkeys(_split_address(entry)[0] for entry in entries)
    return [host for host in hosts if host and not _is_number(host)]


def unresolved_hosts() -> list[str]:
    """Hosts in the process's environment that have no number yet."""
    return host_names({name: os.environ.get(name, "") for name in _LISTS})


async def resolve_hosts(hosts: Sequence[str], timeout_s: float) -> dict[str, str]:
    """IPv4 address of each host that can be resolved; all within `timeout_s`."""
    async with asyncio.TaskGroup() as group:
        tasks = {host: group.create_task(_resolve_host(host, timeout_s)) for host in hosts}
    found = {host: task.result() for host, task in tasks.items()}
    return {host: number for host, number in found.items() if number}


async def _resolve_host(host: str, timeout_s: float) -> str:
    """Empty: it cannot be resolved now."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            infos = await loop.getaddrinfo(host, None, family=socket.AF_INET)
    except (OSError, TimeoutError, UnicodeError):
        return ""
    return str(infos[0][4][0])


def _is_number(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)
    except ValueError:
        return False
    return True
