"""What a change of the catalog means for the channels of a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drey_ca.names import are_names
from drey_core.pages import PAGE_SHIFT, PAGE_SLOTS

I8 = NDArray[np.int64]
PROTOCOL_PVA = 2


class ChannelPage(Protocol):
    """What of a page of the catalog concerns its channels. Arrays of shape (256,)."""

    @property
    def number(self) -> int:
        """Number of the page."""
        ...

    @property
    def pv_number(self) -> I8:
        """0 where there is no living channel."""
        ...

    @property
    def protocol(self) -> NDArray[np.uint8]:
        """1: Channel Access, 2: PVAccess."""
        ...

    @property
    def addresses(self) -> Sequence[str]:
        """256 of them."""
        ...


@dataclass(frozen=True, slots=True)
class Channels:
    """A `ChannelPage` and nothing else."""

    number: int
    pv_number: I8
    protocol: NDArray[np.uint8]
    addresses: Sequence[str]


@dataclass(frozen=True, slots=True)
class ChannelsChange:
    """Channels that go and channels that come. One whose address was corrected is in both.

    `watchable`: names that a channel can have; `unsupported`: of a protocol that is not built.
    """

    removed: I8
    added: I8
    addresses: list[str]
    watchable: NDArray[np.bool_]
    unsupported: NDArray[np.bool_]

    @classmethod
    def join_changes(cls, parts: list[ChannelsChange]) -> ChannelsChange:
        """All of them in order."""
        if not parts:
            none = np.zeros(0, np.int64)
            return cls(none, none, [], np.zeros(0, bool), np.zeros(0, bool))
        return cls(
            np.concatenate([p.removed for p in parts]),
            np.concatenate([p.added for p in parts]),
            [a for p in parts for a in p.addresses],
            np.concatenate([p.watchable for p in parts]),
            np.concatenate([p.unsupported for p in parts]),
        )

    @property
    def gone_channels(self) -> I8:
        """Channels that go and do not come again."""
        return np.setdiff1d(self.removed, self.added, assume_unique=True)


def channels_difference(old: ChannelPage | None, new: ChannelPage) -> ChannelsChange:
    """What `new` changes for the channels of a page known as `old`."""
    lives = new.pv_number != 0
    if old is None:
        was = same = np.zeros(PAGE_SLOTS, bool)
    else:
        was, same = old.pv_number != 0, unchanged(old, new)
    base = new.number << PAGE_SHIFT
    come = np.flatnonzero(lives & ~same)
    addresses = [new.addresses[i] for i in come.tolist()]
    by_pva = new.protocol[come] == PROTOCOL_PVA
    gone = np.flatnonzero(was & ~same) + base
    return ChannelsChange(gone, come + base, addresses, ~by_pva & are_names(addresses), by_pva)


def unchanged(old: ChannelPage, new: ChannelPage) -> NDArray[np.bool_]:
    """Which of the 256 channels live in both pages at the same address. Shape (256,)."""
    same: NDArray[np.bool_] = (
        (old.pv_number != 0)
        & (new.pv_number != 0)
        & (old.protocol == new.protocol)
        & _equal_addresses(old.addresses, new.addresses)
    )
    return same


def _equal_addresses(a: Sequence[str], b: Sequence[str]) -> NDArray[np.bool_]:
    if a == b:
        return np.ones(PAGE_SLOTS, bool)
    return np.fromiter((x == y for x, y in zip(a, b, strict=True)), bool, len(a))
