"""What a change of the catalogue means for the channels of a page."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drey_core.directory import CatalogPage
from drey_core.pages import PAGE_SHIFT

I8 = NDArray[np.int64]
PROTOCOL_PVA = 2
_MAX_ADDRESS = 500


@dataclass(frozen=True, slots=True)
class Change:
    """Channels that go and channels that come. One whose address was corrected is in both."""

    removed: I8
    added: I8
    addresses: list[str]
    watchable: NDArray[np.bool_]

    @classmethod
    def join(cls, parts: list[Change]) -> Change:
        """All of them in order."""
        if not parts:
            none = np.zeros(0, np.int64)
            return cls(none, none, [], np.zeros(0, bool))
        return cls(
            np.concatenate([p.removed for p in parts]),
            np.concatenate([p.added for p in parts]),
            [a for p in parts for a in p.addresses],
            np.concatenate([p.watchable for p in parts]),
        )

    @property
    def gone(self) -> I8:
        """Channels that go and do not come again."""
        return np.setdiff1d(self.removed, self.added)


def difference(old: CatalogPage | None, new: CatalogPage) -> Change:
    """What `new` changes for the channels of a page known as `old`."""
    before = old if old is not None else CatalogPage.empty(new.number)
    was, lives = before.pv_number != 0, new.pv_number != 0
    same = was & lives & (before.protocol == new.protocol) & _equal(before.addresses, new.addresses)
    base = new.number << PAGE_SHIFT
    come = np.flatnonzero(lives & ~same)
    addresses = [new.addresses[i] for i in come.tolist()]
    by_ca = new.protocol[come] != PROTOCOL_PVA
    return Change(
        np.flatnonzero(was & ~same) + base,
        come + base,
        addresses,
        by_ca & np.fromiter(map(is_address, addresses), bool, len(addresses)),
    )


def unchanged(old: CatalogPage, new: CatalogPage) -> NDArray[np.bool_]:
    """Which of the 256 channels live in both pages at the same address. Shape (256,)."""
    same: NDArray[np.bool_] = (
        (old.pv_number != 0)
        & (new.pv_number != 0)
        & (old.protocol == new.protocol)
        & _equal(old.addresses, new.addresses)
    )
    return same


def is_address(text: str) -> bool:
    """Whether a Channel Access channel can have this name."""
    raw = text.encode("utf-8", "surrogateescape")
    return 0 < len(raw) <= _MAX_ADDRESS and not any(b <= 0x20 or b == 0x7F for b in raw)


def _equal(a: list[str], b: list[str]) -> NDArray[np.bool_]:
    return np.fromiter((x == y for x, y in zip(a, b, strict=True)), bool, len(a))
