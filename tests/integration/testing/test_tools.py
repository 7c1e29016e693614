"""The tools that look after the suite: counts of many runs, and tests that assert nothing."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def test_a_test_that_fails_every_second_time_is_named(tmp_path: Path) -> None:
    (tmp_path / "test_moody.py").write_text(
        "from pathlib import Path\n"
        "MARK = Path(__file__).with_name('mark')\n"
        "def test_good():\n    pass\n"
        "def test_moody():\n"
        "    if MARK.exists():\n        MARK.unlink()\n        raise AssertionError\n"
        "    MARK.touch()\n"
    )
    table = tmp_path / "table.md"
    command = [sys.executable, "tests/tools/times.py", "2", "--busy", "1", "--table", str(table)]
    done = subprocess.run(
        [*command, "--", "-p", "no:cacheprovider", f"--rootdir={tmp_path}", str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    text = table.read_text()
    assert done.returncode == 1, done.stdout + done.stderr
    assert text.startswith("1 of 2 runs passed, beside 1 busy loops"), text
    first, second = text.splitlines()[-2:]
    assert first.startswith("| 1 | 2 | 0 | 0 | 0 |"), text
    assert second.startswith("| 2 | 1 | 1 | 0 | 0 |") and "test_moody" in second, text


def test_a_run_that_ended_without_counts_did_not_pass(tmp_path: Path) -> None:
    table = tmp_path / "table.md"
    done = subprocess.run(
        [sys.executable, "tests/tools/times.py", "1", "--table", str(table), "--", "--no-such"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 1
    assert "ended without counts" in table.read_text()


def test_every_test_can_fail() -> None:
    done = subprocess.run(
        [sys.executable, "tests/tools/asserts.py"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def _run_suite(path: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "tests/tools/suite.py", *options, "--", "-n", "2", str(path)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture
def unstable(tmp_path: Path) -> Path:
    """A test that fails the first time and passes from then on."""
    path = tmp_path / "test_unstable.py"
    path.write_text(
        "from pathlib import Path\n"
        "def test_now_and_then():\n"
        "    mark = Path(__file__).with_name('tried')\n"
        "    tried = mark.exists()\n"
        "    mark.touch()\n"
        "    assert tried\n"
    )
    return path


def test_what_passes_only_alone_is_named(unstable: Path) -> None:
    done = _run_suite(unstable)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"UNSTABLE \S*test_now_and_then", done.stdout)


def test_a_strict_run_looks_once(unstable: Path) -> None:
    assert _run_suite(unstable, "--strict").returncode == 1


def test_what_fails_twice_fails_the_suite(tmp_path: Path) -> None:
    path = tmp_path / "test_broken.py"
    path.write_text("def test_never():\n    raise AssertionError\n")
    done = _run_suite(path)
    assert done.returncode == 1
    assert "UNSTABLE" not in done.stdout
