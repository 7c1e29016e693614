"""Channel Access and `fork`: libca's threads do not come along, so nothing may go on."""

from __future__ import annotations

import os

_REMEDY = "Channel Access does not survive fork; start the child process with the 'spawn' method"
_user: list[int] = []


def claim_process() -> int:
    """This process's number; RuntimeError if it was forked from one that used Channel Access."""
    if not _user:
        _user.append(os.getpid())
    elif _user[0] != os.getpid():
        raise RuntimeError(
            f"process {_user[0]} used Channel Access before it forked this one: {_REMEDY}"
        )
    return os.getpid()


def check_process(owner: int) -> None:
    """RuntimeError if this is not the process `owner`, in which the table was opened."""
    if os.getpid() != owner:
        raise RuntimeError(f"this channel table belongs to process {owner}: {_REMEDY}")
