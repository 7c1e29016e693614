"""The programs of Kubernetes, built from the published Go modules into the user's cache, once.

`python -m drey_testing.cluster.programs [--within SECONDS] [NAME...]` builds them (without names:
all). Which versions is said in k8s/cluster/programs/go.mod, for what stands apart below.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

MODULE = Path(__file__).resolve().parents[4] / "k8s/cluster/programs"
PROGRAMS = {
    "etcd": "go.etcd.io/etcd/server/v3",
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
    "kube-controller-manager": "k8s.io/kubernetes/cmd/kube-controller-manager",
    "kube-scheduler": "k8s.io/kubernetes/cmd/kube-scheduler",
    "kubelet": "k8s.io/kubernetes/cmd/kubelet",
    "kube-proxy": "k8s.io/kubernetes/cmd/kube-proxy",
}
INSTALLED = {
    "helm": "helm.sh/helm/v4/cmd/helm@v4.2.4",
    "coredns": "github.com/coredns/coredns@v1.14.6",
    "grpcurl": "github.com/fullstorydev/grpcurl/cmd/grpcurl@v1.9.3",
}
"""Modules of their own: they need other versions of what Kubernetes is made of."""
_WITHIN_S = 7200.0
"""Ten programs take a quarter of an hour on two cores that are not busy."""
_LOOK_S = 0.2
_GO = (1, 26)


class ProgramsMissing(Exception):
    """They are not there and cannot be built here; the text says what to do."""


def version() -> str:
    """Of Kubernetes, as `v1.36.3`."""
    match = re.search(r"^\s*k8s\.io/kubernetes (v\S+)", (MODULE / "go.mod").read_text(), re.M)
    assert match is not None
    return match[1]


def cache() -> Path:
    """The folder of the programs of this version."""
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "drey" / "cluster-bin" / version()


def built_programs(*names: str) -> Path:
    """The folder with these programs; `ProgramsMissing` where one is not built."""
    missing = _missing(cache(), names)
    if missing:
        raise ProgramsMissing(f"{', '.join(missing)} not built here: run `make cluster-programs`")
    return cache()


def programs(*names: str, within_s: float = _WITHIN_S) -> Path:
    """The folder with these programs, built first where they are not there.

    Blocks for minutes then, `within_s` at most, with what is going on on standard error; others who
    want them wait. `ProgramsMissing` where there is no Go, or no module to be had, or no time left.
    What was built till then stays.
    """
    folder, end = cache(), time.monotonic() + within_s
    if _missing(folder, names):
        go = _go()
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / ".lock", end), _empty(folder / ".go-tmp") as temporary:
            for name in _missing(folder, names):
                _build(go, folder, name, temporary, end)
    return folder


def _missing(folder: Path, names: Sequence[str]) -> list[str]:
    return [name for name in names if not (folder / name).exists()]


def _go() -> str:
    program = shutil.which("go")
    if program is None:
        raise ProgramsMissing("Go 1.26 or later is needed to build Kubernetes; it is not installed")
    version = subprocess.run(
        [program, "version"], capture_output=True, text=True, check=True
    ).stdout
    number = re.search(r"go(\d+)\.(\d+)", version)
    if number is None or (int(number[1]), int(number[2])) < _GO:
        raise ProgramsMissing(f"Go 1.26 or later is needed to build Kubernetes; here is {version}")
    return program


def _build(go: str, folder: Path, name: str, temporary: Path, end: float) -> None:
    print(f"building {name} {version()}: minutes, once", file=sys.stderr, flush=True)
    begun = time.monotonic()
    made = folder / f".{name}.new"
    number = version().removeprefix("v").split(".")
    stamps = {"gitVersion": version(), "gitMajor": number[0], "gitMinor": number[1]}
    marks = [f"-X k8s.io/component-base/version.{key}={value}" for key, value in stamps.items()]
    options = ["-trimpath", "-ldflags", " ".join(["-s", "-w", *marks])]
    bin_folder = folder / f".{name}.bin"
    if name in INSTALLED:
        command, where = ["install", *options, INSTALLED[name]], folder
        made = bin_folder / name
    else:
        command, where = ["build", *options, "-o", str(made), PROGRAMS[name]], MODULE
    environment = {
        **os.environ,
        **{"CGO_ENABLED": "0", "GOFLAGS": "", "GOBIN": str(bin_folder)},
        "GOTMPDIR": str(temporary),
    }
    try:
        _run_go([go, *command], where, environment, end)
    except ProgramsMissing as error:
        made.unlink(missing_ok=True)
        raise ProgramsMissing(f"{name} could not be built: {error}") from error
    made.replace(folder / name)
    shutil.rmtree(bin_folder, ignore_errors=True)
    print(f"built {name} in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)


def _run_go(command: Sequence[str], where: Path, environment: dict[str, str], end: float) -> None:
    """Run it to its end, or end it and all that it started."""
    with subprocess.Popen(
        ["nice", "-n", "15", *command],
        cwd=where,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            told, _ = process.communicate(timeout=max(end - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired as error:
            told = (error.output or b"").decode(errors="replace")
            raise ProgramsMissing(
                f"no time is left for `go {command[1]} ... {command[-1]}`, which has said:"
                f" {told.strip()[-2000:] or 'nothing'}"
            ) from error
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode != 0:
        raise ProgramsMissing(told.strip()[-2000:])


@contextmanager
def _lock(path: Path, end: float) -> Iterator[None]:
    with path.open("w") as file:
        while not _locked(file):
            if time.monotonic() > end:
                raise ProgramsMissing(f"another process builds them still ({path})")
            time.sleep(_LOOK_S)
        yield


def _locked(file: IO[str]) -> bool:
    with suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    return False


@contextmanager
def _empty(folder: Path) -> Iterator[Path]:
    """What a build that was killed left in it goes too: gigabytes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    yield folder
    shutil.rmtree(folder)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m drey_testing.cluster.programs")
    parser.add_argument("--within", type=float, default=_WITHIN_S, metavar="SECONDS")
    parser.add_argument("names", nargs="*", metavar="NAME", help="without: all")
    options = parser.parse_args()
    names = options.names or [*PROGRAMS, *INSTALLED]
    try:
        print(programs(*names, within_s=options.within))
    except ProgramsMissing as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
