"""The simulated machine as seen from a test or the demo: start, stop, kill, disturb, read."""

import asyncio
import json
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from drey_machine.ioc import client_env
from drey_machine.plant import Plant, SimPv
from drey_stack import PartFailed, Process
from drey_stack.ports import free_port, is_free

_MODULE = "drey_machine"


class Machine:
    """An IOC process on a loopback port (a free one if 0), with `pvs` catalog PVs.

    Its ports stay the same over restarts. Nothing of EPICS is loaded into this process, so a CA
    client may live here (with `env` in its environment before it is first used). Use from the
    main thread, as an async context manager.
    """

    def __init__(
        self,
        folder: Path,
        pvs: int = 2_000,
        *,
        seed: int = 1,
        rate: float = 0.0,
        fast_share: float = 0.1,
        variant: str = "normal",
        port: int = 0,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.plant = Plant(pvs, seed)
        self.variant = variant
        self._rate = rate
        self._fast_share = fast_share
        self.port = port or free_port()
        self.repeater_port = free_port(avoid={self.port})
        self._process: Process | None = None

    @property
    def client_environment(self) -> dict[str, str]:
        """What a client's environment needs to see this machine, and only it."""
        return client_env(self.port, self.repeater_port)

    @property
    def csv_path(self) -> Path:
        """The catalog; written when the machine starts."""
        return self.folder / "machine.csv"

    @property
    def log_path(self) -> Path:
        """What the IOC prints."""
        return self.folder / "machine.log"

    @property
    def pid(self) -> int | None:
        """The IOC's process id, None when it isn't running."""
        return self._process.pid if self._process and self._process.running else None

    @property
    def dead_addresses(self) -> list[str]:
        """Channels in the catalog that nobody serves."""
        return self.plant.dead_addresses

    @property
    def refused_addresses(self) -> list[str]:
        """Setpoints that refuse every write."""
        return self.plant.refused_addresses

    def names(self, kind: str) -> list[str]:
        """Setpoint channels (or readbacks, where there are no setpoints) of a kind. KeyError."""
        return self.plant.names(kind)

    def catalog_rows(self) -> tuple[SimPv, ...]:
        """Every catalog PV with its kind."""
        return self.plant.rows

    async def start(self, deadline: float = 60.0, *, variant: str | None = None) -> None:
        """Start and return when every record is served; PartFailed after `deadline` seconds.

        `variant` "changed" brings the machine back with other enum labels, types and lengths.
        Nothing is left running when this fails or is cancelled.
        """
        if self.pid is not None:
            return
        end = time.monotonic() + deadline
        self.variant = variant or self.variant
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "machine.json").unlink(missing_ok=True)
        await self._wait_free(end)
        self._process = Process.spawn_process(self._ioc_argv(), log=self.log_path)
        try:
            await self._until_ready(self._process, end)
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """Stop the IOC; harmless if it isn't running."""
        if self._process is not None:
            await self._process.stop(grace=5.0)

    async def kill(self) -> None:
        """SIGKILL the IOC and wait until it is gone."""
        if self._process is not None:
            self._process.kill_group()
            await self._process.wait()
            (self.folder / "machine.json").unlink(missing_ok=True)

    async def disturb_values(self, n: int, seed: int = 1, *, deadline: float = 30.0) -> list[str]:
        """Move `n` magnets by 1 to 5 A from another process; returns their setpoint channels."""
        output = await self._run_command(
            ["disturb", "--count", str(n), "--seed", str(seed)], deadline
        )
        return output.split()

    async def read_channels(
        self, names: Sequence[str], *, deadline: float = 120.0, timeout: float = 60.0
    ) -> dict[str, dict[str, Any]]:
        """Read channels from another process: name → value, severity, status, time_ns, or error.

        `timeout` is how long channels may take to connect and answer, all of them together.
        """
        wanted, answer = self.folder / "read.names", self.folder / "read.json"
        wanted.write_text("\n".join(names), encoding="utf-8")
        argv = ["read", "--names-from", str(wanted), "--json", str(answer)]
        await self._run_command([*argv, "--timeout", str(timeout)], deadline)
        values: dict[str, dict[str, Any]] = json.loads(answer.read_bytes())
        return values

    async def write_channels(
        self, values: Mapping[str, Any], *, deadline: float = 120.0, timeout: float = 60.0
    ) -> dict[str, str]:
        """Write channels with completion from another process: name → "" or what went wrong."""
        wanted = self.folder / "write.json"
        wanted.write_text(json.dumps(dict(values)), encoding="utf-8")
        argv = ["write", "--values-from", str(wanted), "--timeout", str(timeout)]
        answer: dict[str, str] = json.loads(await self._run_command(argv, deadline))
        return answer

    async def __aenter__(self) -> Self:
        """Start with the default deadline."""
        await self.start()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.stop()

    def _ioc_argv(self) -> list[str]:
        options: dict[str, object] = {
            "--pvs": self.plant.pvs,
            "--folder": self.folder,
            "--seed": self.plant.seed,
            "--rate": self._rate,
            "--fast-share": self._fast_share,
            "--variant": self.variant,
            "--port": self.port,
            "--repeater-port": self.repeater_port,
        }
        pairs = [str(word) for pair in options.items() for word in pair]
        return [sys.executable, "-m", _MODULE, *pairs]

    async def _wait_free(self, end: float) -> None:
        while not is_free(self.port):
            if time.monotonic() > end:
                raise PartFailed("machine", f"port {self.port} is taken")
            await asyncio.sleep(0.01)

    async def _until_ready(self, process: Process, end: float) -> None:
        ready = self.folder / "machine.json"
        while not ready.exists():
            if not process.running:
                raise PartFailed("machine", "ended during its start", process.log_tail())
            if time.monotonic() > end:
                raise PartFailed("machine", "not ready in time", process.log_tail())
            await asyncio.sleep(0.01)

    async def _run_command(self, words: list[str], deadline: float) -> str:
        """Run one of the module's commands to its end; RuntimeError with what it said."""
        argv = [sys.executable, "-m", _MODULE, words[0], "--folder", str(self.folder), *words[1:]]
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        try:
            async with asyncio.timeout(deadline):
                output, complaint = await process.communicate()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode != 0:
            raise RuntimeError(f"{words[0]} failed: {complaint.decode(errors='replace').strip()}")
        return output.decode()
