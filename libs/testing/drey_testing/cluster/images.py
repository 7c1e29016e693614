"""The images of the node's tests, made by buildah on a Debian base, without a registry.

`python -m drey_testing.cluster.images` makes those whose sources changed, and prints how large each
is. All lie in the user's cache. Needs root, and what `missing_packages` names.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from drey_testing.cluster.programs import cache

ROOT = Path(__file__).resolve().parents[4]
REGISTRY = "drey.test"
"""There is none of that name: what is not in the node's store is not to be had."""
TAG = "1"
DOCKERFILES = {
    **{
        name: f"services/{name}/Dockerfile"
        for name in ("gateway", "snapshot", "monitor", "restore")
    },
    "web": "k8s/images/web/Dockerfile",
}
"""Of the images that the chart runs."""
LARGEST_MB = 200
"""Above the base, for one of these."""
TOO_LARGE = 3
"""Exit status."""
PACKAGES = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "/bin/busybox": "busybox-static",
}
_PYTHON = ("python3", "python3-venv", "ca-certificates")
_BASES = {"base": _PYTHON, "build-base": (*_PYTHON, "gcc", "libc6-dev", "python3-dev")}
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_BUILD_S = 1800
_MOUNTED = ("/etc/pip.conf", "/etc/ssl/certs")
"""By which pip reaches its index on this machine, while an image is made."""


class ImagesMissing(Exception):
    """They cannot be made here; the text says what to do."""


@dataclass(frozen=True)
class ContainerImage:
    """One image: where its Dockerfile is, and how large it is."""

    name: str
    archive: Path
    size_mb: float


def missing_packages() -> list[str]:
    """Debian packages that are needed here and not installed."""
    return sorted({package for name, package in PACKAGES.items() if not shutil.which(name)})


def archive(name: str) -> Path:
    """Where the archive of an image lies."""
    return _folder() / f"{name}.tar"


def images() -> list[ContainerImage]:
    """All images, those whose sources changed made anew. `ImagesMissing`."""
    missing = missing_packages()
    if missing or os.geteuid() != 0:
        needed = f"apt-get install {' '.join(missing)}" if missing else "root"
        raise ImagesMissing(f"images cannot be made here: {needed}")
    _folder().mkdir(parents=True, exist_ok=True)
    with (_folder() / "lock").open("w") as lock:
        # one at a time, whichever checkout asks: the store is the user's
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _make_all()


def _make_all() -> list[ContainerImage]:
    # what a build that was killed left: it holds images that nobody else needs
    _buildah("rm", "--all")
    for name, packages in _BASES.items():
        _make_base(name, packages)
    _make_pause()
    made = [_make(f"drey-{name}", file) for name, file in DOCKERFILES.items()]
    made += [_make(f"drey-{name}", f"k8s/cluster/images/{name}/Dockerfile") for name in _OTHERS]
    # what nothing with a name is made of: layers of former sources
    _buildah("rmi", "--prune")
    return made


_OTHERS = ("parts", "machine")


def _folder() -> Path:
    return cache().parent.parent / "cluster-images"


def _buildah(*arguments: str) -> str:
    store = ("--root", str(_folder() / "store"), "--runroot", str(_folder() / "run"))
    done = subprocess.run(
        # it mounts its store upon itself and leaves that: in a namespace that ends with it
        ["unshare", "--mount", "--propagation=private", "buildah", *store, *arguments],
        capture_output=True,
        text=True,
        timeout=_BUILD_S,
        check=False,
    )
    if done.returncode:
        output = f"{done.stdout[-2000:]}{done.stderr[-4000:]}".strip()
        raise ImagesMissing(f"buildah {arguments[0]} failed: {output}")
    return done.stdout


def _make_base(name: str, packages: Sequence[str]) -> None:
    """A Debian of the release whose Python is 3.11."""
    context = _folder() / name
    if not (context / "made").exists():
        shutil.rmtree(context, ignore_errors=True)
        context.mkdir()
        _say(f"making Debian's base of {', '.join(packages)}")
        done = subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", f"--include={','.join(packages)}"),
                *("bookworm", str(context / "base.tar")),
            ],
            capture_output=True,
            text=True,
            timeout=_BUILD_S,
            check=False,
        )
        if done.returncode:
            raise ImagesMissing(f"mmdebstrap failed: {done.stderr[-2000:]}")
        (context / "Dockerfile").write_text(f"FROM scratch\nADD base.tar /\nENV PATH={_PATH}\n")
        _build(f"{REGISTRY}/{name}:{TAG}", context / "Dockerfile", context)
        (context / "base.tar").unlink()
        (context / "made").touch()


def _make_pause() -> None:
    context = _folder() / "pause"
    context.mkdir(exist_ok=True)
    shutil.copy2("/bin/busybox", context / "busybox")
    name = f"{REGISTRY}/pause:{TAG}"
    _build(name, ROOT / "k8s/cluster/images/pause/Dockerfile", context)
    _export(name, archive("pause"))


def _make(name: str, dockerfile: str) -> ContainerImage:
    tag = f"{REGISTRY}/{name}:{TAG}"
    begun = time.monotonic()
    if name.removeprefix("drey-") in DOCKERFILES:
        # a name for the first stage too, so that its layers are there the next time
        _build(f"{tag}-build", ROOT / dockerfile, ROOT, "--target=build")
    _build(tag, ROOT / dockerfile, ROOT)
    if _export(tag, archive(name)):
        _say(f"made {name} in {time.monotonic() - begun:.0f} s")
    return ContainerImage(name, archive(name), _size_mb(tag) - _size_mb(f"{REGISTRY}/base:{TAG}"))


def _build(tag: str, dockerfile: Path, context: Path, *options: str) -> None:
    mounts = [f"--volume={path}:{path}:ro" for path in _MOUNTED if Path(path).exists()]
    bases = [
        f"--build-arg={argument}={REGISTRY}/{name}:{TAG}"
        for argument, name in (("BASE", "base"), ("BUILD_BASE", "build-base"))
    ]
    _buildah(
        *("bud", "--layers", "--pull-never", "--isolation=chroot", "--network=host"),
        *(*mounts, *bases, *options, f"--tag={tag}", f"--file={dockerfile}", str(context)),
    )


def _export(tag: str, path: Path) -> bool:
    """Write the image's archive; whether it is another than the one that is there."""
    identity = json.loads(_buildah("inspect", "--type=image", tag))["FromImageID"]
    id_file = path.with_suffix(".id")
    if path.exists() and id_file.exists() and id_file.read_text() == identity:
        return False
    path.unlink(missing_ok=True)
    _buildah("push", "--quiet", tag, f"docker-archive:{path}:{tag}")
    id_file.write_text(identity)
    return True


def _size_mb(tag: str) -> float:
    (image,) = json.loads(_buildah("images", "--json", tag))
    text: str = image["size"]  # as "225 MB"
    number, unit = text.split()
    return float(number) * {"KB": 1e-3, "MB": 1.0, "GB": 1e3}[unit]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def main() -> int:
    """The command; exit status 1 where they cannot be made, TOO_LARGE where one is."""
    try:
        made_images = images()
    except ImagesMissing as error:
        print(error, file=sys.stderr)
        return 1
    too_large = 0
    for image in made_images:
        mark = ""
        if image.name.removeprefix("drey-") in DOCKERFILES and image.size_mb > LARGEST_MB:
            mark, too_large = f", over {LARGEST_MB}", TOO_LARGE
        print(f"{image.name:16}{image.size_mb:6.0f} MB above the base{mark}")
    return too_large


if __name__ == "__main__":
    sys.exit(main())
