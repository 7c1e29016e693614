"""Files and folders that only their owner can read, and short folders for sockets."""

import fcntl
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from drey_stack.errors import FolderBusy, StackError

UMASK = 0o077
"""Of every process that the stack starts."""
_PREFIX = "drey-"
_ROOM = 60
"""Bytes of a socket's folder: with the longest name in it, it has to fit the 107 of an address."""
_PLAIN = re.compile(r"/[A-Za-z0-9_./-]*")
"""Paths that need no quoting in a URL, a gRPC target or a server's configuration."""


def private_folder(path: Path) -> None:
    """Make a folder (its parents too) that only its owner enters; mend the mode of an old one."""
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    if stat.S_IMODE(path.stat().st_mode) != 0o700:
        path.chmod(0o700)


def hold_folder(folder: Path) -> int:
    """Make the folder ours alone; the descriptor keeps others of us out until it is closed.

    Raises `FolderBusy` while another process holds it; the kernel lets go when that one dies.
    """
    private_folder(folder)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise FolderBusy(folder) from error
    return lock


def make_private(path: Path) -> None:
    """Take the rights of group and others from what an older version left, if it is there."""
    if not path.is_symlink() and path.exists():
        path.chmod(0o700 if path.is_dir() else 0o600)
        if path.is_dir():
            for child in path.iterdir():
                make_private(child)


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    partial = path.with_name(path.name + ".new")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)


def quote_path(path: Path) -> str:
    """A path as the configuration of Valkey takes it; StackError where they cannot."""
    text = str(path)
    if any(ord(letter) < 32 for letter in text):
        raise StackError(f"the state folder's name has a control character in it: {text!r}")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def open_log(path: Path) -> int:
    """A descriptor that appends to a log which only its owner reads."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


class RunFolder:
    """A short folder of mode 0700 with a name that nobody can guess, for one run of `home`'s owner.

    A socket's address has 107 bytes, and another user (Postgres under root) has to reach it below
    a home that is closed to him. `home`/run is a link to it, so that clients find it and the next
    start removes what a killed run left. A lock on it says that its run lives: neither a copy of
    the home nor systemd-tmpfiles touches it then.
    """

    def __init__(self, home: Path) -> None:
        self._link = home / "run"
        self._lock: int | None = None
        self.path = Path()

    def make_folder(self, owner: tuple[int, int] | None = None) -> Path:
        """Make it unless it is there, for us or for `owner` (uid, gid), who can run programs in it.

        The same object makes it under the same name again.
        """
        if self._lock is not None:
            return self.path
        self.remove_stale()
        if self.path == Path():
            parent = _short_parent(for_others=owner is not None)
            self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=parent))
        else:
            self.path.mkdir(mode=0o700)
        self._link.symlink_to(self.path)
        self._lock = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        if owner is not None:
            os.chown(self.path, *owner)
        return self.path

    def remove_folder(self) -> None:
        """Remove it with everything in it; harmless if it was never made."""
        if self._lock is not None:
            shutil.rmtree(self.path)
            os.close(self._lock)
            self._lock = None
            self._link.unlink(missing_ok=True)

    def remove_stale(self) -> None:
        """Remove what a run of this home left that was killed."""
        if not self._link.is_symlink():
            return
        stale = self._link.readlink()
        self._link.unlink()
        if stale.name.startswith(_PREFIX):
            _remove_unheld(stale, given_away=True)


@contextmanager
def scratch_folder(prefix: str) -> Iterator[Path]:
    """A new folder for temporary files of one run, which is removed at its end.

    A run that is killed cannot: the next one of the same prefix and user does that, with the
    `RunFolder` of a stack's home in it.
    """
    for stale in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_unheld(stale)
    # nobody looks for it under this name: it gets its own once it is held
    path = Path(tempfile.mkdtemp(prefix=f".{prefix}"))
    lock = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        path = path.rename(path.with_name(path.name[1:]))
        yield path
    finally:
        shutil.rmtree(path)
        os.close(lock)


def _remove_unheld(folder: Path, *, given_away: bool = False) -> None:
    """Remove a folder of ours that no living process holds, with all that is in it.

    Only one that was `given_away` to Postgres' user may be another's; its links are not followed.
    """
    with suppress(OSError):  # gone with the last boot, or no folder, or not ours to open
        lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            is_ours = os.fstat(lock).st_uid == os.geteuid()
            if not is_ours and not given_away:
                return  # whoever made it could have us remove what its links lead to
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for link in folder.glob("*/run") if is_ours else ():
                RunFolder(link.parent).remove_stale()
            shutil.rmtree(folder)
        finally:
            os.close(lock)


def _short_parent(*, for_others: bool) -> str:
    """Where the folder goes. Not $XDG_RUNTIME_DIR: that one goes away when its user logs out."""
    candidates = list(dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"]))
    for folder in candidates:
        if len(folder) > _ROOM - 20 or not _PLAIN.fullmatch(folder):
            continue
        if not os.access(folder, os.W_OK | os.X_OK):
            continue
        no_programs = os.statvfs(folder).f_flag & os.ST_NOEXEC
        if for_others and (no_programs or not others_reach(Path(folder))):
            continue
        return folder
    use = "in which any user can run programs" if for_others else "that is writable"
    raise StackError(
        f"no folder for sockets: none of {', '.join(candidates)} has a short and plain name and is "
        f"one {use}; set TMPDIR to such a folder"
    )


def others_reach(path: Path) -> bool:
    """Whether the path, and every folder above it, lets other users through."""
    real = path.resolve()
    return all(each.stat().st_mode & stat.S_IXOTH for each in (real, *real.parents))
