"""Metadata of the channels of one shard, in columns over all of its pages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drey_ca.interface import InfoColumns
from drey_core.directory import MetadataPage
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS

I8 = NDArray[np.int64]
_PLAIN = ("kind", "count", "readable", "writable", "precision")
_LIMITS = (
    "display_low",
    "display_high",
    "warning_low",
    "warning_high",
    "alarm_low",
    "alarm_high",
    "control_low",
    "control_high",
)
_BLANK = MetadataPage.empty_page(0)


class MetadataTable:
    """What a table of channels said, laid out by page.

    Numbers, units and hosts lie in arrays of one row of 256 for each page, so that the metadata of
    a whole machine that connects at once is a few assignments; labels, which few channels have,
    lie in a dictionary a page.
    """

    def __init__(self) -> None:
        self.numbers: I8 = np.zeros(0, np.int64)
        """Numbers of the pages, ascending."""
        self._columns = _blank_columns(0)
        self._labels: list[dict[int, tuple[bytes, ...]]] = []

    def add_pages(self, numbers: Iterable[int]) -> None:
        """Make room for pages not there yet, nothing known of their channels."""
        have = set(self.numbers.tolist())
        new = set(numbers) - have
        if not new:
            return
        every = np.array(sorted(have | new), np.int64)
        old_rows = np.searchsorted(every, self.numbers)
        columns = _blank_columns(len(every))
        labels: list[dict[int, tuple[bytes, ...]]] = [{} for _ in range(len(every))]
        for name, column in self._columns.items():
            columns[name][old_rows] = column
        for index, page_labels in zip(old_rows.tolist(), self._labels, strict=True):
            labels[index] = page_labels
        self.numbers, self._columns, self._labels = every, columns, labels

    def take_over(self, page: MetadataPage, same: NDArray[np.bool_]) -> None:
        """Replace a known page by the channels in `same` of `page`; nothing of the others."""
        index = int(np.searchsorted(self.numbers, page.number))
        for name, column in self._columns.items():
            if name != "limits":
                theirs = np.array(getattr(page, name), column.dtype)
                column[index] = np.where(same, theirs, _blank_of(name))
        self._columns["limits"][index] = np.where(same, page.limits, np.nan)
        self._labels[index] = {slot: text for slot, text in page.labels.items() if same[slot]}

    def update_channels(self, channels: I8, info: InfoColumns) -> tuple[list[int], I8]:
        """Row i of `info` is of `channels[i]`, each once.

        Gives the numbers of the pages touched, and the channels whose labels are others now.
        """
        page, slot, here = self._find_places(channels)
        for name in _PLAIN:
            self._columns[name][page, slot] = getattr(info, name)[here]
        limits = self._columns["limits"]
        for row, name in enumerate(_LIMITS):
            limits[page, row, slot] = getattr(info, name)[here]
        self._columns["units"][page, slot] = _object_array(info.units)[here]
        self._columns["hosts"][page, slot] = _object_array(info.host)[here]
        relabeled = self._set_labels(page, slot, [info.labels[i] for i in here.tolist()])
        return self._touch_page(page), channels[here][relabeled]

    def forget_channels(self, channels: I8) -> list[int]:
        """Nothing is known of these any more; numbers of the pages touched."""
        page, slot, _ = self._find_places(channels)
        for name, column in self._columns.items():
            if name == "limits":
                column[page, :, slot] = np.nan
            else:
                column[page, slot] = _blank_of(name)
        self._set_labels(page, slot, [()] * len(page))
        return self._touch_page(page)

    def pages(self, numbers: Iterable[int]) -> dict[int, MetadataPage]:
        """Copies of some pages, by number."""
        wanted = np.array(sorted(numbers), np.int64)
        indices = np.searchsorted(self.numbers, wanted).tolist()
        return {n: self._copy_page(n, i) for n, i in zip(wanted.tolist(), indices, strict=True)}

    # --- inside ---

    def _copy_page(self, number: int, index: int) -> MetadataPage:
        columns = {name: column[index] for name, column in self._columns.items()}
        units, hosts = columns.pop("units").tolist(), columns.pop("hosts").tolist()
        copies = {name: column.copy() for name, column in columns.items()}
        return MetadataPage(
            number, units=units, hosts=hosts, labels=dict(self._labels[index]), **copies
        )

    def _find_places(self, channels: I8) -> tuple[I8, I8, I8]:
        """Page index and slot of those channels whose page is here, and which these are."""
        if not len(self.numbers):
            none = np.zeros(0, np.int64)
            return none, none, none
        number = channels >> PAGE_SHIFT
        page = np.minimum(np.searchsorted(self.numbers, number), len(self.numbers) - 1)
        here = np.flatnonzero(self.numbers[page] == number)
        return page[here], channels[here] & PAGE_MASK, here

    def _touch_page(self, page: I8) -> list[int]:
        mask = np.zeros(len(self.numbers), bool)
        mask[page] = True
        touched: list[int] = self.numbers[mask].tolist()
        return touched

    def _set_labels(self, page: I8, slot: I8, labels: list[tuple[bytes, ...]]) -> list[int]:
        """Which of these had others."""
        changed: list[int] = []
        if not any(labels) and not any(self._labels):
            return changed
        places = zip(page.tolist(), slot.tolist(), labels, strict=True)
        for row, (index, place, texts) in enumerate(places):
            if self._labels[index].get(place, ()) != texts:
                changed.append(row)
            if texts:
                self._labels[index][place] = texts
            else:
                self._labels[index].pop(place, None)
        return changed


def _blank_columns(n: int) -> dict[str, NDArray[Any]]:
    columns = {
        name: np.repeat(getattr(_BLANK, name)[None, :], n, axis=0) for name in (*_PLAIN, "limits")
    }
    for name in ("units", "hosts"):
        columns[name] = np.full((n, PAGE_SLOTS), _blank_of(name), object)
    return columns


def _blank_of(name: str) -> Any:
    return getattr(_BLANK, name)[0]


def _object_array(texts: list[Any]) -> NDArray[Any]:
    """As an array of references; numpy would cut trailing NULs off bytes."""
    out = np.empty(len(texts), object)
    out[:] = texts
    return out
