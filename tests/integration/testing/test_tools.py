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
    pytest_options = ["-n", "1", "--dist", "loadgroup", str(path)]
    command = [sys.executable, "tests/tools/suite.py", *options, "--", *pytest_options]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(params=["", "@pytest.mark.xdist_group('g')\n"], ids=["alone", "of a group"])
def unstable(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A test that fails the first time and passes from then on, beside one that passes."""
    path = tmp_path / "test_unstable.py"
    path.write_text(
        "from pathlib import Path\n"
        "import pytest\n"
        "def test_always():\n    pass\n"
        f"{request.param}"
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
    assert re.search(r"UNSTABLE \S*test_now_and_then:", done.stdout)
    assert "1 passed in" in done.stdout, "it was not run alone"


def test_a_strict_run_looks_once(unstable: Path) -> None:
    assert _run_suite(unstable, "--strict").returncode == 1


def test_what_fails_twice_fails_the_suite(tmp_path: Path) -> None:
    path = tmp_path / "test_broken.py"
    path.write_text("def test_never():\n    raise AssertionError\n")
    done = _run_suite(path)
    assert done.returncode == 1
    assert "UNSTABLE" not in done.stdout


def test_tests_of_a_group_run_on_one_worker(tmp_path: Path) -> None:
    """Not so for each pair of versions of pytest and pytest-xdist."""
    path = tmp_path / "test_group.py"
    path.write_text(
        "import pytest\n"
        "@pytest.mark.xdist_group('g')\n"
        "@pytest.mark.parametrize('number', range(8))\n"
        "def test_one(number, worker_id, record_property):\n"
        "    record_property('worker', worker_id)\n"
    )
    report = tmp_path / "report.xml"
    options = ["-n", "2", "--dist", "loadgroup", f"--junitxml={report}", str(path)]
    command = [sys.executable, "-m", "pytest", "-q", *options]
    subprocess.run(command, cwd=ROOT, capture_output=True, check=True)
    workers = re.findall(r'name="worker" value="(\w+)"', report.read_text())
    assert len(workers) == 8
    assert len(set(workers)) == 1
