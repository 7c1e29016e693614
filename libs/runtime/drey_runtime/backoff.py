"""How long to wait after a failure: the one rule for everything that tries again."""

from __future__ import annotations

import random

_MOST_DOUBLINGS = 20


def backoff_delay(attempt: int, *, first_s: float = 0.05, cap_s: float = 1.0) -> float:
    """Seconds to wait after failure number `attempt` (from 0): doubling, capped, jittered."""
    return min(cap_s, first_s * 2.0 ** min(attempt, _MOST_DOUBLINGS)) * random.uniform(0.5, 1.0)
