"""Runs all tests; what failed beside the others is looked at once more, alone, and named.

    python tests/tools/suite.py                 what `make test` runs
    python tests/tools/suite.py --strict        no second look: the first failure counts
    python tests/tools/suite.py -- tests/unit   what pytest shall run instead

The machine may carry other load, and a test that fails only then is a fault of its own: it is
printed as UNSTABLE and written to `.cache/unstable-tests.txt`, whatever the exit code. More than
`MOST_UNSTABLE` failures are no accident: they are not looked at again.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

ROOT = Path(__file__).resolve().parents[2]
UNSTABLE = ROOT / ".cache/unstable-tests.txt"
MOST_UNSTABLE = 5
PYTEST = [sys.executable, "-m", "pytest", "-q", "--durations=25"]
TESTS_FAILED = 1


def suite(workers: int) -> list[str]:
    """The arguments of pytest."""
    return ["-n", str(workers), "--dist", "loadgroup", "-m", "not node"]


def run_tests(arguments: list[str], cache: Path, *, strict: bool) -> tuple[int, list[str]]:
    """The exit code, and the tests that passed only when they ran alone."""
    in_cache = ["-o", f"cache_dir={cache}"]
    code = _run_pytest([*in_cache, *arguments])
    failed = _failed_tests(cache)
    if code != TESTS_FAILED or strict or not 0 < len(failed) <= MOST_UNSTABLE:
        return code, []
    print(f"\n{len(failed)} failed: once more, alone", flush=True)
    alone = ["-n", "0", "--last-failed", "--last-failed-no-failures", "none"]
    code = _run_pytest([*in_cache, *arguments, *alone])
    return code, sorted(set(failed) - set(_failed_tests(cache)))


def _run_pytest(arguments: list[str]) -> int:
    return subprocess.run([*PYTEST, *arguments], cwd=ROOT, check=False).returncode


def _failed_tests(cache: Path) -> list[str]:
    """Names of those that failed last, put back into the cache as a run without workers has them.

    With workers the name of a test ends with its group.
    """
    path = cache / "v/cache/lastfailed"
    if not path.exists():
        return []
    names = [re.sub(r"@[^]@]*$", "", name) for name in json.loads(path.read_text())]
    path.write_text(json.dumps(dict.fromkeys(names, True)))
    return names


def main() -> int:
    """Run them; the exit code."""
    parser = argparse.ArgumentParser(description="Run all tests.")
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--strict", action="store_true", help="no second look at what failed")
    parser.epilog = "What follows -- goes to pytest, instead of the whole suite."
    given = sys.argv[1:]
    split = given.index("--") if "--" in given else len(given)
    options, for_pytest = parser.parse_args(given[:split]), given[split + 1 :]
    arguments = for_pytest or suite(options.workers)
    with TemporaryDirectory() as cache:
        code, unstable = run_tests(arguments, Path(cache), strict=options.strict)
    UNSTABLE.parent.mkdir(exist_ok=True)
    UNSTABLE.write_text("".join(f"{name}\n" for name in unstable))
    for name in unstable:
        print(f"UNSTABLE {name}: failed beside the other tests, passed alone")
    return code


if __name__ == "__main__":
    sys.exit(main())
