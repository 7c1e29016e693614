"""What a snapshot is to be taken of, and what must hold for it."""

from __future__ import annotations

from dataclasses import dataclass

from drey_core.selector import Selector
from drey_snapshot.snapshots.domain.records import Source

DEFAULT_MAX_AGE_NS = 2_000_000_000
DEFAULT_READ_TIMEOUT_S = 5.0
MAX_READ_TIMEOUT_S = 300.0


@dataclass(frozen=True, slots=True)
class Gates:
    """Limits within which a snapshot is taken. `max_missing` None: any number may be missing.

    What `required` chooses must be there in any case; None: nothing is required by name.
    """

    max_age_ns: int = DEFAULT_MAX_AGE_NS
    max_missing: int | None = 0
    required: Selector | None = None


@dataclass(frozen=True, slots=True)
class TakeOrder:
    """A request to take a snapshot, checked."""

    selector: Selector
    source: Source = Source.IMAGE
    gates: Gates = Gates()
    title_template: str = ""
    comment: str = ""
    labels: tuple[str, ...] = ()
    read_timeout_s: float = DEFAULT_READ_TIMEOUT_S
