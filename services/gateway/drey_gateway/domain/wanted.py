"""What a client wants of a watch, and how it changes that of a session. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from drey_core.selector import Selector
from drey_gateway.domain.array_limits import ArrayLimits
from drey_gateway.domain.deadband import Deadband
from drey_gateway.domain.resume import Token
from drey_gateway.domain.terms import (
    SelectorTerm,
    Terms,
    add_selector,
    needs_catalog,
    remove_selector,
)
from drey_gateway.domain.watch import Fields


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a client asked for."""

    terms: Terms
    fields: Fields
    in_columns: bool
    min_interval_s: float
    with_metadata: bool
    allow_unknown: bool
    deadband: Deadband | None
    arrays: ArrayLimits
    token: Token | None
    path: str
    """Of the selector in the client's request."""

    @property
    def needs_catalog(self) -> bool:
        """Whether only the catalog's service knows all PVs that are meant."""
        return any(needs_catalog(term.selector) for term in self.terms)

    @property
    def manner(self) -> bytes:
        """Stands for what makes that which is held another thing than the values, in tokens."""
        deadband = b"" if self.deadband is None else self.deadband.manner
        return deadband + self.arrays.manner

    def keeps_baseline(self, other: Wanted) -> bool:
        """Whether a watch of this goes on as one of `other` without a new baseline."""
        return self._manner_fields() == other._manner_fields()

    def _manner_fields(self) -> tuple[object, ...]:
        return self.fields, self.in_columns, self.with_metadata, self.deadband, self.arrays


Amend = Callable[[Wanted], tuple[Wanted, Terms]]
"""From what a watch wants: what it wants then, and of that the terms that are new."""


@dataclass(frozen=True, slots=True)
class SubscriptionChange:
    """One change of a subscription: it is amended, or replaced; else it ends."""

    number: int
    subscription: str
    amend: Amend | None = None
    replacement: Wanted | None = None


def with_added(selector: Selector, before: Wanted) -> tuple[Wanted, Terms]:
    """With these PVs too."""
    terms = add_selector(before.terms, selector)
    return replace(before, terms=terms), (SelectorTerm(True, selector),)


def with_removed(selector: Selector, before: Wanted) -> tuple[Wanted, Terms]:
    """Without these PVs."""
    return replace(before, terms=remove_selector(before.terms, selector)), ()
