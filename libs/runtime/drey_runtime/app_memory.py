"""The C library's memory: how much of what was freed a process keeps.

glibc gives each thread heaps of its own, keeps what is freed inside them, and after the first
large block was freed puts the next ones inside them too, where smaller ones pin them. A service
that now and then does something large (an import) holds more and more of it, unless it is told
not to. Elsewhere than on glibc these calls do nothing.
"""

from __future__ import annotations

import asyncio
import ctypes
import sys
from typing import Any

# names of <malloc.h>
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8
_LARGE = 4 << 20
"""More than a column of 40,000 PVs: memory got anew costs a page fault every 4 KiB."""


def _load_libc() -> Any:
    """The C library, if it is one that has `mallopt` and `malloc_trim`; else None."""
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


def keep_little() -> None:
    """Let all threads begun from now on use one heap, and blocks of 4 MiB and more none.

    For processes whose threads take turns under the GIL anyway.
    """
    libc = _load_libc()
    if libc is not None:
        libc.mallopt(_ARENA_MAX, 1)
        libc.mallopt(_MMAP_THRESHOLD, _LARGE)
        libc.mallopt(_TRIM_THRESHOLD, _LARGE)


async def give_back() -> None:
    """Give what is free back to the system, in a thread; some milliseconds."""
    libc = _load_libc()
    if libc is not None:
        await asyncio.to_thread(libc.malloc_trim, 0)


class GiveBack:
    """A loop that gives back what is free, again and again, `every_s` seconds apart."""

    def __init__(self, every_s: float = 30.0) -> None:
        self._every_s = every_s

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(self._every_s)
            await give_back()
