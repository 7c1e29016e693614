"""Becomes another program after tying its life to its parent's. Run by path, standard library only.

    python -I -S launch.py '{"parent": 12, "death_signal": 9, "user": [65534, 65534]}' argv…

The work is done here, between exec and exec, because code that runs between fork and exec in a
process with threads (gRPC has some) can deadlock.
"""

import ctypes
import json
import os
import sys
from typing import Any

_PR_SET_PDEATHSIG = 1
_libc: Any = ctypes.CDLL(None, use_errno=True)


def _check_result(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _prctl_option(option: int, *values: int) -> None:
    padded = [ctypes.c_ulong(v) for v in (*values, 0, 0, 0, 0)[:4]]
    _check_result(_libc.prctl(option, *padded), f"prctl({option})")


def become_user(uid: int, gid: int) -> None:
    """Drop root for good, every capability with it."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def main() -> None:
    """Tie, drop, exec. Exits with 127 and a line on stderr where one of them fails."""
    options = json.loads(sys.argv[1])
    argv = sys.argv[2:]
    try:
        if options.get("user"):
            become_user(*options["user"])
        # after the change of user, which would clear it
        _prctl_option(_PR_SET_PDEATHSIG, int(options["death_signal"]))
        if os.getppid() != options["parent"]:
            raise OSError("the parent died before the start")
        os.execve(argv[0], argv, os.environ)
    except OSError as error:
        sys.stderr.write(f"cannot start {argv[0]}: {error}\n")
        sys.exit(127)


if __name__ == "__main__":
    main()
