"""Runs the IOC core in this process. To be run in a process of its own, which it ends."""

import ctypes
import json
import os
import signal
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drey_machine import motor
from drey_machine.database import ACCESS, MENU_SCAN, RecordDatabase
from drey_machine.plant import Plant
from drey_machine.rehearsed import SimMachine, record_text
from drey_stack.ports import LOOPBACK, free_port


@dataclass(frozen=True, slots=True)
class Serving:
    """What to serve, and where."""

    folder: Path
    pvs: int = 2_000
    seed: int = 1
    rate: float = 0.0
    fast_share: float = 0.1
    variant: str = "normal"
    port: int = 0
    repeater_port: int = 0
    interface: str = LOOPBACK
    """Address at which it serves; 0.0.0.0 for all."""


def client_env(port: int, repeater_port: int) -> dict[str, str]:
    """The environment in which a CA client sees this machine and nothing else."""
    return {
        "EPICS_CA_ADDR_LIST": LOOPBACK,
        "EPICS_CA_AUTO_ADDR_LIST": "NO",
        "EPICS_CA_NAME_SERVERS": "",
        "EPICS_CA_SERVER_PORT": str(port),
        "EPICS_CA_REPEATER_PORT": str(repeater_port),
        "EPICS_CA_MAX_ARRAY_BYTES": "16777216",
        "EPICS_PVA_ADDR_LIST": LOOPBACK,
        "EPICS_PVA_AUTO_ADDR_LIST": "NO",
        "EPICS_PVA_NAME_SERVERS": "",
    }


def server_env(port: int, repeater_port: int, interface: str = LOOPBACK) -> dict[str, str]:
    """The IOC's own: at one interface, its beacons sent to loopback only. It serves no PVA."""
    return {
        **client_env(port, repeater_port),
        "EPICS_CAS_INTF_ADDR_LIST": interface,
        "EPICS_CAS_SERVER_PORT": str(port),
        "EPICS_CAS_BEACON_ADDR_LIST": LOOPBACK,
        "EPICS_CAS_AUTO_BEACON_ADDR_LIST": "NO",
        "EPICS_CAS_BEACON_PORT": str(repeater_port),
        "EPICS_CAS_IGNORE_ADDR_LIST": "",
    }


def write_atomically(path: Path, data: bytes) -> None:
    """Write a file that readers see whole or not at all."""
    partial = path.with_name(f"{path.name}.new")
    partial.write_bytes(data)
    partial.replace(path)


def serve_ioc(what: Serving) -> None:
    """Serve a plant until SIGTERM or SIGINT; ends the process. See `_serve_records`."""
    plant = Plant(what.pvs, what.seed)
    what.folder.mkdir(parents=True, exist_ok=True)
    write_atomically(what.folder / "machine.csv", plant.catalog_csv().encode())
    database = RecordDatabase(plant, what.rate, what.fast_share, what.variant)
    _serve_records(what, database.database_text(), (), _describe_plant(what, plant))


def serve_rehearsal(what: Serving, machine: SimMachine) -> None:
    """Serve the machine of a rehearsal until SIGTERM or SIGINT; ends the process."""
    database, later = record_text(machine)
    content = {"channels": len(machine.channels)}
    _serve_records(what, database, later, content)


def _serve_records(
    what: Serving, database: bytes, later: Iterable[tuple[str, str, Any]], content: dict[str, Any]
) -> None:
    """Start the IOC, write `machine.json`, and run until SIGTERM or SIGINT.

    `later` is written, in order, before it is said to be ready: (address, kind, value).
    Ends the process (without running exit handlers: taking 100,000 records apart takes longer
    than making them). RuntimeError when the IOC doesn't start.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
    what.folder.mkdir(parents=True, exist_ok=True)
    ready = what.folder / "machine.json"
    ready.unlink(missing_ok=True)
    port = what.port or free_port()
    repeater_port = what.repeater_port or free_port(avoid={port})
    for key in [key for key in os.environ if key.startswith("EPICS_")]:
        del os.environ[key]
    os.environ.update(server_env(port, repeater_port, what.interface))
    core = _start_ioc(what.folder, database)
    for address, kind, value in later:
        _put_field(core, address, kind, value)
    described = {
        "pid": os.getpid(),
        "ca_port": port,
        "repeater_port": repeater_port,
        "env": client_env(port, repeater_port),
        **content,
    }
    write_atomically(ready, json.dumps(described, indent=1).encode() + b"\n")
    print(f"serving on {what.interface}:{port}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ready.unlink(missing_ok=True)
    os._exit(0)


def _describe_plant(what: Serving, plant: Plant) -> dict[str, Any]:
    return {
        "pvs": plant.pvs,
        "seed": plant.seed,
        "variant": what.variant,
        "channels": len(plant.setpoints) + len(plant.readbacks),
        "csv": "machine.csv",
        "kinds": plant.counts,
        "dead": plant.dead_addresses,
        "refused": plant.refused_addresses,
    }


def _start_ioc(folder: Path, database: bytes) -> Any:
    from epicscorelibs import ioc

    base_dbd = Path(ioc.DEFAULT_DBD_PATH)
    # a path with a colon in it is two in the IOC's search path: it looks from here
    os.chdir(folder)
    own = Path("dbd")
    own.mkdir(exist_ok=True)
    (own / "menuScan.dbd").write_text(MENU_SCAN, encoding="ascii")
    (own / "motor.dbd").write_text(motor.motor_definition(base_dbd), encoding="utf-8")
    (own / "access.acf").write_text(ACCESS, encoding="ascii")
    (own / "machine.db").write_bytes(database)

    core: Any = ioc.dbCore
    core.asSetFilename.argtypes = [ctypes.c_char_p]
    path = f"{own}:{base_dbd}".encode()
    # the default of 512 buckets makes each look-up of a name walk through hundreds of records
    core.dbPvdTableSize(65_536)
    ioc.iocshRegisterCommon()
    _check_status(ioc.dbLoadDatabase(b"base.dbd", path, None), "base.dbd")
    _check_status(ioc.registerRecordDeviceDriver(ioc.pdbbase), "record support")
    _check_status(ioc.dbLoadDatabase(b"motor.dbd", path, None), "motor.dbd")
    motor.register_motor(core, ioc.pdbbase)
    _check_status(core.asSetFilename(str(own / "access.acf").encode()), "access.acf")
    _check_status(ioc.dbLoadRecords(str(own / "machine.db").encode(), None), "machine.db")
    _check_status(ioc.iocInit(), "iocInit")
    return core


# the numbers of dbFldTypes.h, and how an element lies in memory
_FIELD_TYPES = {
    "uint8": (2, "B"),
    "int16": (3, "h"),
    "int32": (5, "i"),
    "float32": (9, "f"),
    "float64": (10, "d"),
    "enum": (11, "H"),
}
_DBF_STRING, _DBF_CHAR = 0, 1
_STRING_BYTES = 40
_ADDRESS_BYTES = 1024
"""More than a DBADDR takes."""


def _put_field(core: Any, address: str, kind: str, value: Any) -> None:
    """Write a field as a client would: it processes what is passive."""
    place = ctypes.create_string_buffer(_ADDRESS_BYTES)
    _check_status(core.dbNameToAddr(address.encode(), place), address)
    if kind == "text":
        data = value.encode(errors="surrogateescape") + b"\0"
        number, count = _DBF_CHAR, len(data)
    elif kind == "string":
        texts = [each.encode(errors="surrogateescape") for each in value]
        data = b"".join(text[: _STRING_BYTES - 1].ljust(_STRING_BYTES, b"\0") for text in texts)
        number, count = _DBF_STRING, len(texts)
    else:
        number, letter = _FIELD_TYPES[kind]
        values = value if isinstance(value, list) else [value]
        data, count = struct.pack(f"={len(values)}{letter}", *values), len(values)
    _check_status(
        core.dbPutField(place, ctypes.c_short(number), data, ctypes.c_long(count)), address
    )


def _check_status(status: int, what: str) -> None:
    if status != 0:
        raise RuntimeError(f"the IOC could not load {what} (status {status})")
