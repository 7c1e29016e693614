"""Runs the tests that need a node with pods: `make cluster-test`.

    python -m drey_testing.cluster.suite [PYTEST ARGUMENT...]

Says what is missing here, builds the programs and the images where they are not built, prints how
large the images are, and runs tests/k8s/node inside the sandbox. Exit status 2 where there can be
no node, and nothing was tested then.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

from drey_testing.cluster import images, node, sandbox
from drey_testing.cluster.programs import ProgramsMissing, programs

TESTS = "tests/k8s/node"
PROGRAMS = (*node.PROGRAMS, "helm", "grpcurl")


def obstacles() -> list[str]:
    """Why there can be no node here, each with what to do; empty: nothing is in the way."""
    lacks = []
    if os.geteuid() != 0:
        lacks.append("it needs root: it makes namespaces, mounts and cgroups of its own")
    if not shutil.which("apt-get"):
        lacks.append(f"it needs Debian or Ubuntu; here is {platform.platform()}")
    missing = sorted({*node.missing_packages(), *images.missing_packages()})
    if missing:
        lacks.append(
            f"packages are missing: apt-get install --no-install-recommends {' '.join(missing)}"
        )
    return lacks


def main() -> int:
    """The command."""
    lacks = obstacles()
    try:
        if not lacks:
            programs(*PROGRAMS)
    except ProgramsMissing as error:
        lacks.append(str(error))
    if lacks:
        print(
            "NO NODE HERE, the chart was NOT tested with pods:", *lacks, sep="\n  ", file=sys.stderr
        )
        return 2
    if images.main():
        return 1
    os.chdir(Path(__file__).resolve().parents[4])
    pytest = (sys.executable, "-m", "pytest", TESTS, "-m", "node", "-s", "-v")
    try:
        return sandbox.run_inside([*pytest, *sys.argv[1:]])
    except sandbox.NoSandbox as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
