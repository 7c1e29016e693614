"""Which epochs can be believed.

An epoch grows by one at each take-over, and is at least the time of it in milliseconds since 1970
(`drey_core.election.first_epoch`). One that is far beyond those known was never given to an owner:
it is a defect's or a vandal's, and believing it would shut the true owner out for ever.
"""

from __future__ import annotations

EPOCH_STEP = 1 << 42
"""More than the milliseconds from 1970 to 2109, so that who knows none yet believes the first."""


def epoch_believable(epoch: int, greatest: int) -> bool:
    """Whether an owner may have this epoch, `greatest` being the greatest believed so far."""
    return 0 < epoch <= greatest + EPOCH_STEP
