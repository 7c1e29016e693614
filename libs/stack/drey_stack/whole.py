"""The whole stack on one machine: parts, migrations, keys, the four services, kept running.

What `drey up` and `drey demo` start, and what the end-to-end tests and benchmarks stand on. All
state lies in one folder; a second start finds its data, its ports and its first key again.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Self

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from drey.access.v1 import access_service_pb2, access_service_pb2_grpc
from drey_stack.errors import StackError
from drey_stack.nats import Nats
from drey_stack.part import Part
from drey_stack.ports import LOOPBACK, free_port, is_free
from drey_stack.postgres import APPLICATION, Postgres
from drey_stack.supervisor import Child, Supervisor
from drey_stack.valkey import Valkey

SERVICES = ("snapshot", "monitor", "restore", "gateway")
MIGRATED = ("drey_runtime", "drey_snapshot", "drey_restore", "drey_gateway")
CLIENT_FILE = "client.toml"

_TLS = ("DREY_TLS_CERT", "DREY_TLS_KEY")
_USABLE_S = 30.0
_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Say = Callable[[str], None]


@dataclass(frozen=True)
class StackOptions:
    """How to run the stack.

    `listen`: address of the gateway; empty takes a free port of 127.0.0.1, `gateway_port` where it
    is free. `epics`: EPICS_CA_* variables for monitor, snapshot and restore, over those of this
    process. `environment`: further variables for all services, such as DREY_OTLP_ENDPOINT.
    `fsync=False` is for tests.
    """

    folder: Path
    listen: str = ""
    gateway_port: int = 0
    shards: int = 1
    monitors: int = 1
    epics: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    fsync: bool = True
    postgres_template: Path | None = None
    say: Say = lambda _: None


class Stack:
    """The running stack. Use inside `async with`, from the main thread."""

    def __init__(self, options: StackOptions) -> None:
        self.options = options
        self.folder = Path(options.folder).absolute()
        self.postgres = Postgres(
            self.folder / "postgres",
            fsync=options.fsync,
            template=options.postgres_template,
            # three services with a pool of ten, a connection for each monitor, and room
            settings={"max_connections": str(60 + 2 * max(options.monitors, 20))},
        )
        self.nats = Nats(self.folder / "nats")
        self.valkey = Valkey(self.folder / "valkey")
        self.supervisor = Supervisor()
        self.server = ""
        self.key = ""
        self.first_key = False
        self._ports: dict[str, int] = {}
        self._keep: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    @property
    def environment(self) -> dict[str, str]:
        """The environment of the services."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("DREY_")}
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # each start would compile everything anew
        keys = self.folder / "keys"
        return {
            **inherited,
            "DREY_POSTGRES_URL": self.postgres.application_url,
            "DREY_NATS_URL": self.nats.url,
            "DREY_REDIS_URL": self.valkey.url,
            "DREY_SHARDS": str(self.options.shards),
            "DREY_TRUSTED_KEYS": str(keys / "trusted.json"),
            **{
                f"DREY_{name.upper()}_TARGET": f"{LOOPBACK}:{self._ports[name]}"
                for name in ("snapshot", "monitor", "restore")
            },
            **self.options.environment,
        }

    async def __aenter__(self) -> Self:
        """Start everything; returns when every service serves."""
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything in reverse order."""
        await self._stack.aclose()

    async def _start(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        say = self.options.say
        say("starting Postgres, NATS and Valkey")
        await self._start_parts()
        self._choose_ports()
        say("preparing the database")
        await self._prepare()
        await self._stack.enter_async_context(self.supervisor)
        say("starting the services")
        await self._start_services()
        await self._until_usable()
        self._write_client_file()
        self._keep = asyncio.create_task(self._keep_parts(), name="keep parts")
        self._stack.push_async_callback(self._stop_keeping)

    async def _start_parts(self) -> None:
        parts: tuple[Part, ...] = (self.postgres, self.nats, self.valkey)
        for part in parts:
            self._stack.push_async_callback(part.stop)
        await _together(*(part.start() for part in parts))

    def _choose_ports(self) -> None:
        path = self.folder / "ports.json"
        known: dict[str, int] = json.loads(path.read_text()) if path.exists() else {}
        known.setdefault("gateway", self.options.gateway_port)
        names = [*SERVICES, *(f"monitor-{i}" for i in range(1, self.options.monitors))]
        for name in names:
            port = known.get(name, 0)
            if not port or port in self._ports.values() or not is_free(port):
                port = free_port(set(self._ports.values()))
            self._ports[name] = port
        path.write_text(json.dumps(self._ports))
        self.server = self.options.listen or f"{LOOPBACK}:{self._ports['gateway']}"

    async def _prepare(self) -> None:
        await self._run("drey_runtime.keys", str(self.folder / "keys"), *SERVICES)
        owner = {"DREY_POSTGRES_URL": self.postgres.url}
        await self._run(
            "drey_runtime.migrate", "--application-role", APPLICATION, *MIGRATED, environment=owner
        )
        client = self.folder / CLIENT_FILE
        if client.exists():
            self.key = _read_key(client)
        if not self.key:
            # a state folder that lost its client file has an admin already: this one is another
            name = "admin" if not (self.folder / "keys.made").exists() else f"admin-{token_hex(4)}"
            out = await self._run("drey_gateway.bootstrap", "--name", name, "--force")
            (self.folder / "keys.made").touch()
            self.key = out.strip()
            self.first_key = True

    async def _run(
        self, module: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run a module to its end in the services' environment, or more; its standard output."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            env=self.environment | dict(environment or {}),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            out, err = await process.communicate()
        except BaseException:
            if process.returncode is None:
                process.kill()
                await process.wait()
            raise
        if process.returncode:
            raise StackError(f"{module} failed: {err.decode(errors='replace').strip()}")
        return out.decode()

    async def _start_services(self) -> None:
        """All side by side: each starts without the others; the supervisor keeps them."""
        monitors = ["monitor", *(f"monitor-{i}" for i in range(1, self.options.monitors))]
        names = ("snapshot", *monitors[: self.options.monitors], "restore", "gateway")
        children = [self._child(name, name.partition("-")[0]) for name in names]
        await _together(*(self.supervisor.start(child) for child in children))

    async def _until_usable(self) -> None:
        """Wait until the gateway knows the keys: a service serves before all parts answered it."""
        if _TLS[0] in self.options.environment:
            return
        end = time.monotonic() + _USABLE_S
        metadata = (("authorization", f"Bearer {self.key}"),)
        options = [("grpc.enable_http_proxy", 0)]
        async with grpc.aio.insecure_channel(self.server, options=options) as channel:
            stub = access_service_pb2_grpc.AccessServiceStub(channel)
            while True:
                try:
                    request = access_service_pb2.WhoAmIRequest()
                    await stub.WhoAmI(request, metadata=metadata, timeout=2)
                    return
                except grpc.aio.AioRpcError as error:
                    waits = error.code() in _NOT_YET and time.monotonic() < end
                    if not waits:
                        raise StackError(
                            f"the gateway does not serve: {error.details()}"
                        ) from error
                await asyncio.sleep(0.05)

    def _child(self, name: str, service: str) -> Child:
        listen = self.server if name == "gateway" else f"{LOOPBACK}:{self._ports[name]}"
        environment = self.environment | {
            f"DREY_{service.upper()}_LISTEN": listen,
            "DREY_SIGNING_KEY": str(self.folder / "keys" / f"{service}.pem"),
        }
        if service != "gateway":
            environment |= self.options.epics
            for variable in _TLS:  # the others are called on loopback, by the gateway
                environment.pop(variable, None)
        log = self.folder / f"{name}.log"
        secure = _TLS[0] in environment

        async def ready() -> None:
            await _probe(listen, secure=secure)

        return Child(name, [sys.executable, "-m", f"drey_{service}"], environment, None, log, ready)

    def _write_client_file(self) -> None:
        path = self.folder / CLIENT_FILE
        path.touch(mode=0o600)
        text = f'server = "{self.server}"\nkey = "{self.key}"\n'
        if _TLS[0] in self.options.environment:
            authority = Path(self.options.environment[_TLS[0]]).absolute()
            text += f'tls = true\nca = "{authority}"\n'
        path.write_text(text)

    async def _keep_parts(self) -> None:
        """Start a part again when it dies under us, as the supervisor does for the services."""
        async with asyncio.TaskGroup() as group:
            for part in (self.postgres, self.nats, self.valkey):
                group.create_task(self._keep_part(part))

    async def _keep_part(self, part: Part) -> None:
        while True:
            await part.wait()
            self.options.say(f"{part.name} ended, starting it again")
            await asyncio.sleep(0.2)
            await part.start()

    async def _stop_keeping(self) -> None:
        if self._keep is not None:
            self._keep.cancel()
            await asyncio.wait({self._keep})

    async def wait_failed(self) -> None:
        """Wait until something cannot be kept running, and raise what it is."""
        failed = asyncio.ensure_future(self.supervisor.wait_any_failed())
        waits = {failed} | ({self._keep} if self._keep is not None else set())
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failed.cancel()
        for task in done:
            task.result()


async def _together(*work: Coroutine[Any, Any, None]) -> None:
    """Run side by side; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


def _read_key(path: Path) -> str:
    for line in path.read_text().splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "key":
            return value.strip().strip('"')
    return ""


async def _probe(target: str, *, secure: bool) -> None:
    """Return when the server at `target` answers its health check; else TimeoutError."""
    host, _, port = target.rpartition(":")
    if secure:  # the certificate's name need not be ours: that it listens is enough here
        _, writer = await asyncio.wait_for(asyncio.open_connection(host, int(port)), 1)
        writer.close()
        return
    options = [("grpc.enable_http_proxy", 0)]
    async with grpc.aio.insecure_channel(target, options=options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        begin = time.monotonic()
        try:
            await stub.Check(health_pb2.HealthCheckRequest(), timeout=1, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            raise TimeoutError(
                f"{target}: {error.details()} after {time.monotonic() - begin:.1f} s"
            ) from error
