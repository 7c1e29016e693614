"""Which writes go next: a batch takes a bounded number for each IOC, so that none waits for one."""

from __future__ import annotations

import numpy as np

from drey_core.values import I8


def next_rows(lanes: I8, closed: I8, *, batch: int, per_lane: int) -> I8:
    """Indexes of the next writes, in order, at most `batch`, and `per_lane` of each lane.

    `lanes[i]` is the IOC of write i, as a number; none is taken of the lanes in `closed`.
    """
    index = np.flatnonzero(~np.isin(lanes, closed))
    order = np.argsort(lanes[index], kind="stable")
    lane = lanes[index][order]
    firsts = np.flatnonzero(np.concatenate([[True], lane[1:] != lane[:-1]])) if len(lane) else lane
    sizes = np.diff(np.concatenate([firsts, [len(lane)]]))
    rank = np.arange(len(lane)) - np.repeat(firsts, sizes)
    taken: I8 = np.sort(index[order[rank < per_lane]])[:batch]
    return taken
