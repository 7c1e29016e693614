"""The tools that look after the suite: counts of many runs, and tests that assert nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

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
