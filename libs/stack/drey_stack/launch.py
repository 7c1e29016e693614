"""Becomes another program after tying its life to its parent's. Run by path, standard library only.

    python -I -S launch.py '{"parent": 12, "death_signal": 9, "user": [65534, 65534, 2]}' argv…

The work is done here, between exec and exec, because code that runs between fork and exec in a
process with threads (gRPC has some) can deadlock.
"""

import ctypes
import json
import os
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_PR_SET_KEEPCAPS = 8
_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_RAISE = 2
_CAP_VERSION_3 = 0x20080522

_libc: Any = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl(option: int, *values: int) -> None:
    padded = [ctypes.c_ulong(v) for v in (*values, 0, 0, 0, 0)[:4]]
    _check(_libc.prctl(option, *padded), f"prctl({option})")


def _keep_only(capability: int) -> None:
    """Reduce this thread's capability sets to the one given, inheritable included."""
    data = (_Data * 2)()
    word, bit = divmod(capability, 32)
    data[word] = _Data(1 << bit, 1 << bit, 1 << bit)
    _check(_libc.capset(ctypes.byref(_Header(_CAP_VERSION_3, 0)), ctypes.byref(data)), "capset")


def become_user(uid: int, gid: int, capability: int | None) -> None:
    """Drop root for good, keeping at most one capability, over the next exec too."""
    if capability is not None:
        _prctl(_PR_SET_KEEPCAPS, 1)
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)
    if capability is not None:
        _keep_only(capability)
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, capability)


def main() -> None:
    """Tie, drop, exec. Exits with 127 and a line on stderr where one of them fails."""
    options = json.loads(sys.argv[1])
    argv = sys.argv[2:]
    try:
        if options.get("user"):
            become_user(*options["user"])
        # after the change of user, which would clear it
        _prctl(_PR_SET_PDEATHSIG, int(options["death_signal"]))
        if os.getppid() != options["parent"]:
            raise OSError("the parent died before the start")
        os.execve(argv[0], argv, os.environ)
    except OSError as error:
        sys.stderr.write(f"cannot start {argv[0]}: {error}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
