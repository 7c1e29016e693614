"""The stack in folders of any name and mode, as root and not, under any umask."""

import json
import os
import pwd
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from drey_stack.postgres import postgres_programs
from drey_stack.private import others_reach

ROOT = Path(__file__).resolve().parents[3]
NAMES = ["Größe mit 'Leerzeichen' \"und\" 測定", "l" * 150, "a:b#c%20d$HOME;e"]
DEMO = ["-m", "drey_cli.main", "demo", "--pvs", "60"]
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def environment(temporary: Path) -> dict[str, str]:
    """Of a user whose temporary files go to a short folder, in which nothing may be left."""
    return os.environ | {"TMPDIR": str(temporary), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.fixture
def temporary(short_folder: Path) -> Path:
    return short_folder


def walk(folder: Path, temporary: Path, *, python: str = sys.executable, **options) -> None:
    """Run a short demo whose state is kept in the folder; it ends well and leaves no more."""
    report = folder / "report.json"
    argv = [python, *DEMO, "--keep", str(folder / "state"), "--report", str(report)]
    environ = environment(temporary) | options.pop("env", {})
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, timeout=600, check=False, **options
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(report.read_text())["ok"]
    assert list(temporary.iterdir()) == []


def open_to_others(folder: Path) -> list[str]:
    """What somebody else could read or enter."""
    return [
        str(path)
        for path in folder.rglob("*")
        if not path.is_symlink() and path.lstat().st_mode & 0o077
    ]


@pytest.mark.parametrize(("name", "umask"), [*zip(NAMES, (0o077, 0o022, 0o000), strict=True)])
def test_the_demo_in_any_folder(name: str, umask: int, tmp_path: Path, temporary: Path) -> None:
    closed = tmp_path / "closed"
    folder = closed / name
    folder.mkdir(parents=True)
    closed.chmod(0o700)
    walk(folder, temporary, umask=umask)
    assert (folder / "state" / "state").stat().st_mode & 0o777 == 0o700
    assert open_to_others(folder / "state" / "state") == []


@as_root
def test_an_installation_that_is_closed_to_others(tmp_path: Path, temporary: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    package = postgres_programs().parents[1]
    for path in (package, package.with_suffix(".libs")):
        shutil.copytree(path, closed / "lib" / path.name, symlinks=True)
    assert not others_reach(closed / "lib")
    walk(closed, temporary, env={"PYTHONPATH": str(closed / "lib")})


def python_for_others(folder: Path) -> str:
    """This environment's interpreter, or the system's in one that has the same packages."""
    packages = Path(postgres_programs()).parents[2]
    if not others_reach(packages):
        pytest.skip("this environment is closed to other users")
    if others_reach(Path(sys.executable)):
        return sys.executable
    other = Path("/usr/bin") / f"python3.{sys.version_info.minor}"
    if not other.exists():
        pytest.skip("this interpreter is closed to other users")
    subprocess.run([other, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv").glob("lib/*/site-packages")
    (site / "packages.pth").write_text(f"import site; site.addsitedir({str(packages)!r})\n")
    # redis asks for it below 3.11.3, and this environment was made for a later one
    (site / "async_timeout.py").write_text("from asyncio import timeout\n")
    return str(folder / "venv/bin/python")


@as_root
@pytest.mark.parametrize("umask", [0o077, 0o022])
def test_as_a_plain_user(umask: int, temporary: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    folder = temporary / "home"
    folder.mkdir(mode=0o700)
    temporary.chmod(0o755)
    inner = folder / "t"
    inner.mkdir()
    for path in (folder, inner):
        os.chown(path, nobody.pw_uid, nobody.pw_gid)
    walk(
        folder,
        inner,
        python=python_for_others(temporary),
        umask=umask,
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        env={"HOME": str(folder)},
        cwd=folder,
    )


def test_make_demo_by_a_path_with_blanks(tmp_path: Path, temporary: Path) -> None:
    checkout = tmp_path / "mit Leerzeichen, Größe"
    checkout.mkdir()
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "libs", "services", "proto"):
        (checkout / name).symlink_to(ROOT / name)
    (checkout / ".venv").symlink_to(Path(sys.prefix))
    done = subprocess.run(
        ["make", "demo", "PVS=60", "DEMO_JSON=mein Bericht.json", "-o", ".venv/.installed-run"],
        cwd=checkout,
        env=environment(temporary),
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads((checkout / "mein Bericht.json").read_text())["ok"]
