"""Other users reach nothing of the stack but the gateway and NATS, which ask who it is.

And the metrics, where they are asked for, which tell of no PV and no key.
"""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import psutil

from drey_stack import ChildState
from drey_stack.whole import SERVICES
from tests.e2e.conftest import Running


def _processes(running: Running) -> list[psutil.Process]:
    mine = [status.pid for status in running.stack.supervisor.child_statuses()]
    parts = [
        part.pid for part in (running.stack.postgres, running.stack.nats, running.stack.valkey)
    ]
    return [psutil.Process(pid) for pid in (*mine, *parts)]


def _metrics_ports(running: Running) -> set[int]:
    """A service may have been started again: the last that it said counts."""
    logs = [running.stack.folder / f"{name}.log" for name in SERVICES]
    return {int(re.findall(r"metrics at port (\d+)", log.read_text())[-1]) for log in logs}


def test_ports_are_the_gateways_and_of_nats(running: Running) -> None:
    listening = {
        connection.laddr.port
        for process in _processes(running)
        for connection in process.net_connections(kind="tcp")
        if connection.status == "LISTEN"
    }
    gateway = int(running.stack.server.rpartition(":")[2])
    assert listening == {gateway, running.stack.nats.port} | _metrics_ports(running)


def test_sockets_lie_in_folders_of_our_own(running: Running) -> None:
    sockets = {
        Path(connection.laddr)
        for process in _processes(running)
        for connection in process.net_connections(kind="unix")
        if connection.laddr
    }
    names = {path.name for path in sockets}
    assert names >= {
        "snapshot.sock",
        "monitor.sock",
        "restore.sock",
        "valkey.sock",
        ".s.PGSQL.5432",
    }
    assert {path.parent.stat().st_mode & 0o777 for path in sockets} == {0o700}


def test_a_killed_service_takes_its_socket_again(running: Running) -> None:
    supervisor = running.stack.supervisor
    (before,) = (status for status in supervisor.child_statuses() if status.name == "snapshot")
    supervisor.kill("snapshot")
    again = supervisor.wait_for("snapshot", ChildState.READY, restarts=before.restarts + 1)
    assert running.do(again).pid != before.pid

    def taken() -> bool:
        try:
            return running.take().pv_count > 0
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            return False

    running.pump(taken, 300)
