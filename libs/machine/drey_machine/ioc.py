"""Runs the IOC core in this process. To be run in a process of its own, which it ends."""

import ctypes
import json
import os
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from drey_machine import motor
from drey_machine.database import ACCESS, MENU_SCAN, RecordDatabase
from drey_machine.plant import Plant
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


def serve(what: Serving) -> None:
    """Start the IOC, write `machine.json`, and run until SIGTERM or SIGINT.

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
    plant = Plant(what.pvs, what.seed)
    write_atomically(what.folder / "machine.csv", plant.csv().encode())
    _start_ioc(what, plant)
    write_atomically(ready, _describe_machine(what, plant, port, repeater_port))
    print(f"serving {plant.pvs} PVs on {what.interface}:{port}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    ready.unlink(missing_ok=True)
    os._exit(0)


def _describe_machine(what: Serving, plant: Plant, port: int, repeater_port: int) -> bytes:
    content = {
        "pid": os.getpid(),
        "ca_port": port,
        "repeater_port": repeater_port,
        "env": client_env(port, repeater_port),
        "pvs": plant.pvs,
        "seed": plant.seed,
        "variant": what.variant,
        "channels": len(plant.setpoints) + len(plant.readbacks),
        "csv": "machine.csv",
        "kinds": plant.counts,
        "dead": plant.dead,
        "refused": plant.refused,
    }
    return json.dumps(content, indent=1).encode() + b"\n"


def _start_ioc(what: Serving, plant: Plant) -> None:
    from epicscorelibs import ioc

    base_dbd = Path(ioc.DEFAULT_DBD_PATH)
    # a path with a colon in it is two in the IOC's search path: it looks from here
    os.chdir(what.folder)
    own = Path("dbd")
    own.mkdir(exist_ok=True)
    (own / "menuScan.dbd").write_text(MENU_SCAN, encoding="ascii")
    (own / "motor.dbd").write_text(motor.definition(base_dbd), encoding="utf-8")
    (own / "access.acf").write_text(ACCESS, encoding="ascii")
    database = RecordDatabase(plant, what.rate, what.fast_share, what.variant)
    (own / "machine.db").write_bytes(database.text())

    core: Any = ioc.dbCore
    core.asSetFilename.argtypes = [ctypes.c_char_p]
    path = f"{own}:{base_dbd}".encode()
    # the default of 512 buckets makes each look-up of a name walk through hundreds of records
    core.dbPvdTableSize(65_536)
    ioc.iocshRegisterCommon()
    _check_status(ioc.dbLoadDatabase(b"base.dbd", path, None), "base.dbd")
    _check_status(ioc.registerRecordDeviceDriver(ioc.pdbbase), "record support")
    _check_status(ioc.dbLoadDatabase(b"motor.dbd", path, None), "motor.dbd")
    motor.register(core, ioc.pdbbase)
    _check_status(core.asSetFilename(str(own / "access.acf").encode()), "access.acf")
    _check_status(ioc.dbLoadRecords(str(own / "machine.db").encode(), None), "machine.db")
    _check_status(ioc.iocInit(), "iocInit")


def _check_status(status: int, what: str) -> None:
    if status != 0:
        raise RuntimeError(f"the IOC could not load {what} (status {status})")
