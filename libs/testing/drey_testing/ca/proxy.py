"""A TCP proxy before an IOC that stalls, cuts, delays, half-closes and chops.

libca connects to whatever port a search reply names, so the proxy answers the searches for its
names itself, on a port of the pool, and the IOC serves on another port where no search goes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from types import TracebackType

from drey_testing.ca.ioc import return_port, take_port
from drey_testing.ca.wire import search_reply, searched
from drey_testing.tcp_proxy import TcpProxy


class Proxy(TcpProxy, asyncio.DatagramProtocol):
    """Serves `names` of the IOC at `upstream` for as long as the scope lasts."""

    def __init__(self, upstream: int, names: Collection[str]) -> None:
        super().__init__(upstream, take_port())
        self._names = frozenset(names)
        self._udp: asyncio.DatagramTransport | None = None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        super().__exit__(kind, error, traceback)
        return_port(self.port)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer searches: the names are here."""
        for cid, name in searched(data):
            if self._udp is not None and name.decode("latin-1") in self._names:
                self._udp.sendto(search_reply(self.port, cid), addr)

    async def open_server(self) -> None:
        """Likewise, and where searches come."""
        await super().open_server()
        address = ("127.0.0.1", self.port)
        self._udp, _ = await self._loop.create_datagram_endpoint(lambda: self, local_addr=address)

    async def close_server(self) -> None:
        """Likewise."""
        if self._udp is not None:
            self._udp.close()
        await super().close_server()
