"""Numbers of channels: setpoints and readbacks lie on pages of their own.

Readbacks move all the time and setpoints rarely, so a snapshot stores the pages of the setpoints
once. Pages come in pairs: 2j+1 has setpoints and 2j+2 readbacks, and a shard owns whole pairs
(`drey_core.pages.shard_of_page`). Page 0 is never used: channel 0 means "none".
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import ROLE_SETPOINT
from drey_core.pages import PAGE_MASK, PAGE_SHIFT

I8 = NDArray[np.int64]


def channel_numbers(role: int, ordinals: I8) -> I8:
    """Numbers of the channels of a role by ordinal, from 0; ascending where the ordinals are."""
    first = 1 if role == ROLE_SETPOINT else 2
    page = 2 * (ordinals >> PAGE_SHIFT) + first
    numbers: I8 = (page << PAGE_SHIFT) | (ordinals & PAGE_MASK)
    return numbers


def last_page(setpoints: int, readbacks: int) -> int:
    """Last page that may hold a channel, when so many of each were given out; 0 where none was."""
    given = max(setpoints, readbacks)
    return 2 * ((given - 1) >> PAGE_SHIFT) + 2 if given else 0
