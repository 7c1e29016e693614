"""The whole stack on one machine: parts, migrations, keys, the four services, kept running.

What `drey up` and `drey demo` start, and what the end-to-end tests and benchmarks stand on. All
state lies in one folder; a second start finds its data, its port and its first key again. The parts
talk over Unix sockets in folders that no other user enters, except NATS, which knows none.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from secrets import token_hex
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import grpc
import psutil
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2, health_pb2_grpc

from drey.access.v1 import access_service_pb2
from drey.restore.v1 import restore_service_pb2
from drey.snapshot.v1 import snapshot_service_pb2
from drey_stack.envoy import Envoy
from drey_stack.envoy_config import HttpOptions, Upstream
from drey_stack.errors import ChildFailed, StackError
from drey_stack.foreground import finish_shielded
from drey_stack.nats import Nats
from drey_stack.part import Part
from drey_stack.ports import LOOPBACK, free_port, is_free, reached_at
from drey_stack.postgres import APPLICATION, Postgres
from drey_stack.private import UMASK, RunFolder, hold_folder, make_private, write_private
from drey_stack.supervisor import Child, Supervisor
from drey_stack.valkey import Valkey

_Result = TypeVar("_Result")

SERVICES = ("snapshot", "monitor", "restore", "gateway")
MIGRATED = ("drey_runtime", "drey_snapshot", "drey_restore", "drey_gateway")
CLIENT_FILE = "client.toml"
_PROXY = "proxy"
"""In the folder of keys: by what the gateway believes our Envoy for whom it speaks."""

_OWN = (
    "nats",
    "valkey",
    "machine",
    "keys",
    "envoy",
    "*.made",
    "*.json",
    "*.toml",
    "*.log",
    "postgres/*.log",
)
"""What of a state folder an older version may have left open; Postgres sees to its own."""
_TLS = ("DREY_TLS_CERT", "DREY_TLS_KEY")
_USABLE_S = 300.0
# One cheap call of each service that the gateway forwards to, and one that it answers itself.
_FIRST_CALLS: tuple[tuple[str, str, Message], ...] = (
    ("gateway", "/drey.access.v1.AccessService/WhoAmI", access_service_pb2.WhoAmIRequest()),
    (
        "snapshot service",
        "/drey.snapshot.v1.SnapshotService/ListSnapshots",
        snapshot_service_pb2.ListSnapshotsRequest(page_size=1),
    ),
    (
        "restore service",
        "/drey.restore.v1.RestoreService/ListPlans",
        restore_service_pb2.ListPlansRequest(page_size=1),
    ),
)
_NOT_YET = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)

Say = Callable[[str], None]


@dataclass(frozen=True)
class StackOptions:
    """How to run the stack.

    `listen`: address of the gateway; empty takes a free port of 127.0.0.1, `gateway_port` where it
    is free. `epics`: EPICS_* variables for monitor, snapshot and restore; where there are any, none
    of this process is passed on. `environment`: further variables for all services, such as
    DREY_OTLP_ENDPOINT; a DREY_POSTGRES_URL, DREY_NATS_URL or DREY_REDIS_URL in it names a server
    from outside, and that part is not started here. `postgres_owner_url`: by which the migrations
    own the schemas of such a Postgres; empty: the services' role owns them.
    `http`: serve gRPC-Web and REST too, through Envoy, by the gateway's certificate where it has
    one. `fsync=False` is for tests.
    """

    folder: Path
    listen: str = ""
    gateway_port: int = 0
    shards: int = 1
    monitors: int = 1
    epics: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    postgres_owner_url: str = ""
    http: HttpOptions | None = None
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
            socket=True,
            fsync=options.fsync,
            template=options.postgres_template,
            # four pools of ten, a connection for each monitor, and room
            settings={"max_connections": str(60 + 2 * max(options.monitors, 20))},
        )
        self.nats = Nats(self.folder / "nats")
        self.valkey = Valkey(self.folder / "valkey", socket=True)
        self._parts: dict[str, Part] = {
            variable: part
            for variable, part in (
                ("DREY_POSTGRES_URL", self.postgres),
                ("DREY_NATS_URL", self.nats),
                ("DREY_REDIS_URL", self.valkey),
            )
            if not options.environment.get(variable)
        }
        self.envoy: Envoy | None = None
        self._run_folder = RunFolder(self.folder)
        self._lock: int | None = None
        self.supervisor = Supervisor(options.say)
        self.server = ""
        self.web = ""
        self.key = ""
        self.first_key = False
        self._keep: asyncio.Task[None] | None = None
        self._stack = AsyncExitStack()

    @property
    def client_environment(self) -> dict[str, str]:
        """The environment of the services."""
        # of EPICS either all is of this process or all is given, lest a machine that was not meant
        # be found
        own = ("DREY_", "EPICS_") if self.options.epics else ("DREY_",)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(own)}
        inherited.pop("PYTHONDONTWRITEBYTECODE", None)  # each start would compile everything anew
        keys = self.folder / "keys"
        return {
            **inherited,
            **{variable: part.service_url for variable, part in self._parts.items()},
            "DREY_SHARDS": str(self.options.shards),
            "DREY_GATEWAY_AUDIT_ANCHORS": str(self.folder / "audit.anchors"),
            **({"DREY_GATEWAY_PROXY_SECRET": str(keys / _PROXY)} if self.options.http else {}),
            "DREY_TRUSTED_KEYS": str(keys / "trusted.json"),
            **{
                f"DREY_{name.upper()}_TARGET": self._socket_of(name)
                for name in ("snapshot", "monitor", "restore")
            },
            **self.options.environment,
        }

    async def __aenter__(self) -> Self:
        """Start everything; returns when every service serves."""
        try:
            await self._start_all()
        except BaseException:
            await finish_shielded(self._stack.aclose())
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything in reverse order, also when cancelled."""
        await finish_shielded(self._stack.aclose())

    async def _start_all(self) -> None:
        self._take_folder()
        say = self.options.say
        say(self._what_starts())
        await self._start_parts()
        self._choose_address()
        say("preparing the database")
        await self._prepare_all()
        await self._stack.enter_async_context(self.supervisor)
        say("starting the services")
        await self._start_services()
        await self._until_usable()
        if self.options.http is not None:
            await self._start_envoy(self.options.http)
        self._write_client_file()
        self._keep = asyncio.create_task(self._keep_parts(), name="keep parts")
        self._stack.push_async_callback(self._stop_keeping)

    def _take_folder(self) -> None:
        self._lock = hold_folder(self.folder)
        self._stack.callback(self._release_folder)
        for name in _OWN:
            for path in self.folder.glob(name):
                make_private(path)
        self._run_folder.make_folder()

    def _release_folder(self) -> None:
        self._run_folder.remove_folder()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _what_starts(self) -> str:
        names = {
            "DREY_POSTGRES_URL": "Postgres",
            "DREY_NATS_URL": "NATS",
            "DREY_REDIS_URL": "Valkey",
        }
        started = [name for variable, name in names.items() if variable in self._parts]
        outside = [variable for variable in names if variable not in self._parts]
        return "; ".join(
            [f"starting {', '.join(started)}" for _ in started[:1]]
            + [f"using the server that {variable} names" for variable in outside]
        )

    async def _start_parts(self) -> None:
        for part in self._parts.values():
            self._stack.push_async_callback(part.stop)
        await run_together(*(part.start() for part in self._parts.values()))

    def _choose_address(self) -> None:
        """Of the gateway: the one that was asked for, or the last one, or a free one.

        Port 0 asks for one of the latter at that host.
        """
        host, _, asked_port = self.options.listen.rpartition(":")
        if asked_port not in ("", "0"):
            self.server = self.options.listen
            return
        path = self.folder / "ports.json"
        try:
            port = int(json.loads(path.read_text())["gateway"])
        except (FileNotFoundError, ValueError, TypeError, KeyError):
            port = self.options.gateway_port
        if not port or not is_free(port):
            port = free_port()
        write_private(path, json.dumps({"gateway": port}))
        self.server = f"{host or LOOPBACK}:{port}"

    def _socket_of(self, name: str) -> str:
        return f"unix:{self._run_folder.path / name}.sock"

    @property
    def certificate_path(self) -> Path | None:
        """By which the gateway is believed, where it speaks TLS."""
        path = self.options.environment.get(_TLS[0])
        return Path(path) if path is not None else None

    def channel(self, **options: int) -> grpc.aio.Channel:
        """A channel to the gateway, which is believed by its own certificate where it has one."""
        arguments = [("grpc.enable_http_proxy", 0), *options.items()]
        if self.certificate_path is None:
            return grpc.aio.insecure_channel(self.server, options=arguments)
        credentials = grpc.ssl_channel_credentials(self.certificate_path.read_bytes())
        return grpc.aio.secure_channel(self.server, credentials, options=arguments)

    async def _prepare_all(self) -> None:
        await self._run_module("drey_runtime.keys", str(self.folder / "keys"), *SERVICES)
        write_private(self.folder / "keys" / _PROXY, token_hex(32))
        role, owner = self._database_roles()
        await self._run_module(
            "drey_runtime.migrate",
            *(["--application-role", role] if role else []),
            *MIGRATED,
            environment={"DREY_POSTGRES_URL": owner},
        )
        client = self.folder / CLIENT_FILE
        if client.exists():
            self.key = _read_key(client)
        if not self.key:
            # a state folder that lost its client file has an admin already: this one is another
            name = "admin" if not (self.folder / "keys.made").exists() else f"admin-{token_hex(4)}"
            out = await self._run_module("drey_gateway.bootstrap", "--name", name, "--force")
            write_private(self.folder / "keys.made", "")
            self.key = out.strip()
            self.first_key = True

    def _database_roles(self) -> tuple[str, str]:
        """The role of the services where it is another than the owner, and the owner's URL."""
        if self.postgres in self._parts.values():
            return APPLICATION, self.postgres.url
        services = self.options.environment["DREY_POSTGRES_URL"]
        if not self.options.postgres_owner_url:
            return "", services
        return unquote(urlsplit(services).username or ""), self.options.postgres_owner_url

    async def _run_module(
        self, module: str, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> str:
        """Run a module to its end in the services' environment, or more; its standard output."""
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            *arguments,
            env=self.client_environment | dict(environment or {}),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,  # a Ctrl-C is ours to pass on
            umask=UMASK,
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
        names = ("snapshot", *monitors[: self.options.monitors], "restore")
        children = [self._service_child(name, name.partition("-")[0]) for name in names]
        started = (self.supervisor.start_child(child) for child in children)
        await run_together(*started, self._start_gateway())

    async def _start_gateway(self) -> None:
        """Start it on another port where somebody took the chosen one in the meantime."""
        while True:
            try:
                return await self.supervisor.start_child(self._service_child("gateway", "gateway"))
            except ChildFailed:
                if self.server == self.options.listen or is_free(
                    int(self.server.rpartition(":")[2])
                ):
                    raise
                self._choose_address()

    async def _start_envoy(self, http: HttpOptions) -> None:
        certificate, key = (self.options.environment.get(variable) for variable in _TLS)
        host, _, port = self.server.rpartition(":")
        secret = (self.folder / "keys" / _PROXY).read_text()
        upstream = Upstream(
            reached_at(host.strip("[]")), int(port), _absolute_path(certificate), secret=secret
        )
        http = replace(http, certificate=_absolute_path(certificate), key=_absolute_path(key))
        self.envoy = Envoy(self.folder / "envoy", upstream, http)
        self._stack.push_async_callback(self.envoy.stop)
        await self.envoy.start()
        self.web = self.envoy.url

    def _child_listens(self, name: str, port: int) -> bool:
        """Whether it is the child that listens, and nobody else who would be sent a key."""
        (child,) = (status for status in self.supervisor.child_statuses() if status.name == name)
        try:
            connections = psutil.Process(child.pid or 0).net_connections(kind="tcp")
        except psutil.Error:  # it has just ended
            return False
        return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)

    async def _until_usable(self) -> None:
        """Wait until each service answers through the gateway.

        A service serves before all parts answered it, and the gateway reaches a service later
        than we do: it may have tried too early, and waits before it tries again.
        """
        if _TLS[0] in self.options.environment:
            return
        end = time.monotonic() + _USABLE_S
        metadata = (("authorization", f"Bearer {self.key}"),)
        async with self.channel() as channel:
            for name, method, request in _FIRST_CALLS:
                call: Any = channel.unary_unary(
                    method, request_serializer=type(request).SerializeToString
                )
                while True:
                    try:
                        await call(request, metadata=metadata, timeout=5)
                        break
                    except grpc.aio.AioRpcError as error:
                        waits = error.code() in _NOT_YET and time.monotonic() < end
                        if not waits:
                            raise StackError(
                                f"the {name} does not serve: {error.details()}"
                            ) from error
                    await asyncio.sleep(0.05)

    def _service_child(self, name: str, service: str) -> Child:
        listen = self.server if name == "gateway" else self._socket_of(name)
        environment = self.client_environment | {
            f"DREY_{service.upper()}_LISTEN": listen,
            "DREY_SIGNING_KEY": str(self.folder / "keys" / f"{service}.pem"),
        }
        if service != "gateway":
            environment |= self.options.epics
            for variable in _TLS:  # the others are called by the gateway, over sockets of ours
                environment.pop(variable, None)
        log = self.folder / f"{name}.log"
        secure = _TLS[0] in environment

        async def service_ready() -> None:
            if name == "gateway" and not self._child_listens(name, int(listen.rpartition(":")[2])):
                raise ConnectionRefusedError
            await _probe_health(listen, secure=secure)

        return Child(
            name, [sys.executable, "-m", f"drey_{service}"], environment, None, log, service_ready
        )

    def _write_client_file(self) -> None:
        text = f'server = "{self.server}"\nkey = "{self.key}"\n'
        if self.web:
            text += f'web = "{self.web}"\n'
        if _TLS[0] in self.options.environment:
            authority = Path(self.options.environment[_TLS[0]]).absolute()
            text += f'tls = true\nca = "{authority}"\n'
        write_private(self.folder / CLIENT_FILE, text)

    async def _keep_parts(self) -> None:
        """Start a part again when it dies under us, as the supervisor does for the services."""
        async with asyncio.TaskGroup() as group:
            for part in (*self._parts.values(), *filter(None, [self.envoy])):
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


async def run_together(*work: Coroutine[Any, Any, None]) -> None:
    """Run side by side; the first failure cancels the others and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for each in work:
                group.create_task(each)
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures


async def run_while_alive(
    work: Coroutine[Any, Any, _Result], *deaths: Coroutine[Any, Any, None]
) -> _Result:
    """What `work` gives; the first of `deaths` that raises cancels it, and is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            waits = [group.create_task(each) for each in deaths]
            result = await group.create_task(work)
            for each in waits:
                each.cancel()
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from failures
    return result


def _absolute_path(path: str | None) -> Path | None:
    return None if path is None else Path(path).absolute()


def _read_key(path: Path) -> str:
    for line in path.read_text().splitlines():
        name, _, value = line.partition("=")
        if name.strip() == "key":
            return value.strip().strip('"')
    return ""


async def _probe_health(target: str, *, secure: bool) -> None:
    """Return when the server at `target` answers its health check; else TimeoutError."""
    host, _, port = target.rpartition(":")
    if secure:  # the certificate's name need not be ours: that it listens is enough here
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(host, int(port))
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
