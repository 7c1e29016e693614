"""Which epochs can be believed.

An epoch grows by one at each take-over. One that is far beyond those known was never given to an
owner: it is a defect's or a vandal's, and believing it would shut the true owner out for ever.
"""

from __future__ import annotations

EPOCH_STEP = 1 << 32


def believable(epoch: int, known: int) -> bool:
    """Whether an owner may have this epoch, `known` being the greatest believed so far."""
    return 0 < epoch <= known + EPOCH_STEP
