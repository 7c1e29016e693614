"""Command line: serve a machine; disturb it; read it from outside."""

import argparse
import asyncio
import json
import sys
from pathlib import Path

from drey_machine import client
from drey_machine.ioc import Serving, serve_ioc, serve_rehearsal, write_atomically
from drey_machine.rehearsed import SimMachine
from drey_stack.ports import LOOPBACK


def _serve_command(argv: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m drey_machine")
    parser.add_argument("--pvs", type=int, default=2_000, help="catalog PVs, 20 to 200,000")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--rate", type=float, default=0.0, help="Hz of the fast magnets")
    parser.add_argument("--fast-share", type=float, default=0.1, help="share that is fast")
    parser.add_argument("--variant", choices=("normal", "changed"), default="normal")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--repeater-port", type=int, default=0, help="0: a free one")
    parser.add_argument("--interface", default=LOOPBACK, help="address to serve at")
    args = parser.parse_args(argv)
    args.folder = args.folder.absolute()
    serve_ioc(Serving(**vars(args)))


def _rehearse_command(argv: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m drey_machine rehearse")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--channels", type=Path, required=True, help="of SimMachine.write_file")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--repeater-port", type=int, default=0, help="0: a free one")
    args = parser.parse_args(argv)
    what = Serving(args.folder.absolute(), port=args.port, repeater_port=args.repeater_port)
    serve_rehearsal(what, SimMachine.read_file(args.channels))


def _disturb_command(argv: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m drey_machine disturb")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args(argv)
    plant = client.use_machine(args.folder)
    for name in asyncio.run(client.disturb_plant(plant, args.count, args.seed)):
        print(name)


def _read_command(argv: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m drey_machine read")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--json", type=Path, required=True, help="where the answer goes")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--names-from", type=Path, help="a file with one name a line")
    what.add_argument("--setpoints", action="store_true", help="all setpoints that are served")
    parser.add_argument("--timeout", type=float, default=60.0)
    args = parser.parse_args(argv)
    plant = client.use_machine(args.folder)
    if args.setpoints:
        names = plant.setpoints
    else:
        names = args.names_from.read_text(encoding="utf-8").split()
    values = asyncio.run(client.read_channels(names, args.timeout))
    write_atomically(args.json, json.dumps(values).encode())


def _write_command(argv: list[str]) -> None:
    parser = argparse.ArgumentParser("python -m drey_machine write")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--values-from", type=Path, required=True, help="JSON: name to value")
    parser.add_argument("--timeout", type=float, default=60.0)
    args = parser.parse_args(argv)
    client.use_machine(args.folder)
    values = json.loads(args.values_from.read_bytes())
    print(json.dumps(asyncio.run(client.write_channels(values, args.timeout))))


def main() -> None:
    """Run the command that the first word names; to serve is the one without a name."""
    commands = {
        "disturb": _disturb_command,
        "read": _read_command,
        "rehearse": _rehearse_command,
        "write": _write_command,
    }
    argv = sys.argv[1:]
    if argv and argv[0] in commands:
        commands[argv[0]](argv[1:])
    else:
        _serve_command(argv)


if __name__ == "__main__":
    main()
