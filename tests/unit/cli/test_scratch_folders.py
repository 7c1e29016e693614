"""Folders of rehearsals and demos: gone at the end, and those of killed runs at the next start."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drey_stack.private import scratch_folder

PREFIX = "drey-scratched-"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


@contextmanager
def held(path: Path) -> Iterator[None]:
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def left_folder(folder: Path) -> tuple[Path, Path]:
    """What a killed run left: its folder, and the sockets of its stack."""
    left, sockets = folder / f"{PREFIX}left", folder / "drey-sockets"
    (left / "state").mkdir(parents=True)
    sockets.mkdir()
    (left / "state" / "run").symlink_to(sockets)
    return left, sockets


def test_what_a_killed_run_left_is_removed_with_its_sockets(folder: Path) -> None:
    left, sockets = left_folder(folder)
    with scratch_folder(PREFIX) as path, scratch_folder(PREFIX) as other:
        assert path.name.startswith(PREFIX)
        assert not left.exists()
        assert not sockets.exists()
        assert path.exists()  # of a run that lives
        assert other.exists()
    assert list(folder.iterdir()) == []


def test_what_a_living_run_holds_stays(folder: Path) -> None:
    left, sockets = left_folder(folder)
    with held(left), scratch_folder(PREFIX):
        assert (left / "state" / "run").readlink() == sockets
        assert sockets.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away: NOT RUN")
def test_what_another_user_made_is_left_alone_and_its_links_are_not_followed(folder: Path) -> None:
    left, sockets = left_folder(folder)
    os.chown(left, 65534, 65534)
    with scratch_folder(PREFIX):
        pass
    assert left.exists()
    assert sockets.exists()
