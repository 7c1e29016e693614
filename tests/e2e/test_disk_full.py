"""No room on the disk: at the start it is said and nothing is left; later it ends with the lack."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import psutil
import pytest

from drey.access.v1 import access_service_pb2, access_service_pb2_grpc
from drey.system.v1 import system_service_pb2, system_service_pb2_grpc
from drey_runtime.status import reason_of

HANGS_S = 500
MOUNTED = 'mount -t tmpfs -o size="$1" none "$2" && cd "$2" && shift 2 && exec "$@"'
"""In a mount namespace of its own: the file system is gone with the last process in it."""

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0
    or subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode != 0,
    reason="NOT TESTED: a small file system needs root and mount namespaces",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Short enough for sockets, and the place of the file system."""
    made = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def _started(folder: Path, size: str, out: Path) -> subprocess.Popen[bytes]:
    (folder / "disk").mkdir(mode=0o755)
    drey = [sys.executable, "-m", "drey_cli.main", "up", "--no-web"]
    argv = ["unshare", "-m", "sh", "-c", MOUNTED, "sh", size, str(folder / "disk"), *drey]
    with out.open("wb") as file:
        return subprocess.Popen(argv, stdout=file, stderr=file)


def _left(folder: Path) -> list[str]:
    """Command lines of processes that work in the folder."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.cwd().startswith(str(folder)) or str(folder) in " ".join(process.cmdline()):
                found.append(" ".join(process.cmdline()))
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_a_stack_that_has_no_room_to_start_says_so_and_leaves_nothing(folder: Path) -> None:
    process = _started(folder, "5m", folder / "out")
    assert process.wait(HANGS_S) == 1
    said = (folder / "out").read_text()
    assert "No space left on device" in said
    assert "Traceback" not in said
    assert not _left(folder)


def test_a_disk_that_fills_refuses_what_is_to_be_kept_and_goes_on_when_there_is_room(
    folder: Path,
) -> None:
    process = _started(folder, "400m", folder / "out")
    try:
        key, address = _up(folder / "out", process)
        # as this process sees what the other has mounted
        disk = Path(f"/proc/{process.pid}/root{folder / 'disk'}")
        with grpc.insecure_channel(address) as channel:
            access = access_service_pb2_grpc.AccessServiceStub(channel)
            call = {"metadata": (("authorization", f"Bearer {key}"),), "timeout": 60}

            def make_key(number: int) -> None:
                grants = [{"role": "viewer"}]
                request = access_service_pb2.CreateKeyRequest(name=f"k{number}", grants=grants)
                access.CreateKey(request, **call)

            make_key(0)
            before = _pids(process)
            _fill(disk / "filler")
            with pytest.raises(grpc.RpcError) as refused:
                for number in range(1, 100_000):  # until no page that is there has room
                    make_key(number)
            error: grpc.Call = refused.value  # type: ignore[assignment]
            assert error.code() is grpc.StatusCode.UNAVAILABLE, error.details()
            assert reason_of(refused.value)[0] == "DATABASE_UNAVAILABLE"
            # the one who is called at night is told what it is, and what to do
            system = system_service_pb2_grpc.SystemServiceStub(channel)

            def postgres() -> system_service_pb2.Part:
                request = system_service_pb2.GetSystemSummaryRequest()
                summary = system.GetSystemSummary(request, **call).summary
                return next(part for part in summary.parts if part.name == "postgres")

            def wait_postgres(state: int) -> str:
                end = time.monotonic() + HANGS_S
                while (part := postgres()).state != state:
                    assert time.monotonic() < end, (part, (folder / "out").read_text())
                    time.sleep(0.2)
                return part.detail

            detail = wait_postgres(system_service_pb2.PART_STATE_DOWN)
            assert "its disk is full: free space" in detail
            # who they are is known, and what needs no room is answered
            assert access.WhoAmI(access_service_pb2.WhoAmIRequest(), **call).principal == "admin"
            (disk / "filler").unlink()
            end = time.monotonic() + HANGS_S
            while True:
                try:
                    make_key(-1)
                    break
                except grpc.RpcError:
                    assert time.monotonic() < end, (folder / "out").read_text()
                    time.sleep(0.2)
            wait_postgres(system_service_pb2.PART_STATE_UP)
            # nobody took it for a defect of Drey
            assert before <= _pids(process)
    finally:
        process.send_signal(signal.SIGINT)
        assert process.wait(HANGS_S) == 0, (folder / "out").read_text()
    assert not _left(folder)


def _up(out: Path, process: subprocess.Popen[bytes]) -> tuple[str, str]:
    """(first key, address of the gateway) once it is up."""
    end = time.monotonic() + HANGS_S
    while "Ctrl-C stops everything" not in out.read_text():
        assert process.poll() is None, out.read_text()
        assert time.monotonic() < end, out.read_text()
        time.sleep(0.1)
    said = out.read_text()
    (key,) = re.findall(r"drey_\S{20,}", said)
    (address,) = re.findall(r"Drey is up at (\S+);", said)
    return key, address


def _pids(process: subprocess.Popen[bytes]) -> set[tuple[int, float]]:
    """Drey's own processes: ids are used again, so with their times."""
    children = psutil.Process(process.pid).children(recursive=True)
    return {
        (child.pid, child.create_time())
        for child in children
        if " -m drey_" in " ".join(child.cmdline())
    }


def _fill(path: Path) -> None:
    """Write until there is no room for another byte."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12, 1):
            while True:
                try:
                    file.write(b"x" * size)
                except OSError:
                    break
