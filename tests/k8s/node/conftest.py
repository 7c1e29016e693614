"""One node with one release for all tests of this folder, which leave it as they found it."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from drey_testing import leaks
from drey_testing.cluster import images
from drey_testing.cluster.node import PAUSE_IMAGE, Node
from drey_testing.cluster.sandbox import INSIDE
from drey_testing.cluster.suite import STANDS
from tests.k8s.node.pod_logs import PodLogs
from tests.k8s.node.site import Site, timed

SITE = pytest.StashKey[Site]()
BEGUN = pytest.StashKey[float]()


def pytest_configure() -> None:
    # The node makes them for its pods, at any time; they end with the sandbox, after the last test.
    leaks.watch.keepers.append(leaks.keep_processes(r"^\S*containerd-shim"))


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A cluster of one node."""
    if INSIDE not in os.environ:
        pytest.skip("NO NODE HERE, the chart was NOT tested with pods: run `make cluster-test`")
    made = Node(images.archive("pause"))
    with asyncio.Runner() as runner:
        try:
            with timed("node ready"):
                runner.run(made.start())
                _run_a_pod(made)
            if STANDS in os.environ:
                Path(os.environ[STANDS]).touch()
            yield made
        finally:
            runner.run(made.stop())


def _run_a_pod(node: Node) -> None:
    """Where this fails it is not the release's fault."""
    node.kubectl("run", "probe", f"--image={PAUSE_IMAGE}", "--image-pull-policy=Never")
    node.kubectl("wait", "pod/probe", "--for=condition=Ready", "--timeout=2m")
    node.kubectl("delete", "pod", "probe", "--grace-period=1")


@pytest.fixture(scope="session")
def site(
    node: Node, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Site]:
    """The release, its catalog imported, its channels connected."""
    # beside what the kubelet writes, which removes it with the pod
    with PodLogs(Path("/var/log/pods"), Path("/var/log/pods-kept")) as logs:
        made = Site(node, tmp_path_factory.mktemp("site"), logs)
        request.config.stash[SITE] = made
        try:
            with timed("installed, imported, connected"):
                made.install()
            yield made
        finally:
            made.write_logs()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the node and its pods said meanwhile, those that are gone too."""
    report = yield
    site = item.config.stash.get(SITE, None)
    if report.failed and site is not None:
        report.sections += site.describe_since(item.stash[BEGUN])
    return report


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[BEGUN] = time.time()
