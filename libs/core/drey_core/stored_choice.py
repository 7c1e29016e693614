"""Choosing PVs of a stored state by the catalog as of that state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from drey_core.errors import NotFound, fields_at
from drey_core.selector import Selector, SelectorIndex
from drey_core.values import I8

Mask = NDArray[np.bool_]
Today = Callable[[Selector], tuple[I8, list[str]]]
"""Numbers of the PVs that a selector chooses by today's catalog, and what nothing has."""


class Chooser:
    """Evaluates selectors over the PVs of one snapshot.

    Names, addresses, globs, devices and numbers are those of the snapshot. A snapshot does not
    keep ids, tags and saved scopes: these are taken from today's catalog, and what they choose
    there is looked for here by number.
    """

    def __init__(self, index: SelectorIndex, today: Today) -> None:
        self._index, self._today = index, today
        self.not_found: list[str] = []

    def choose_rows(self, selector: Selector, path: str = "selector") -> Mask:
        """Which PVs of the index are chosen; what nothing has is added to `not_found`.

        Raises `InvalidArgument` for a selector that is wrong in itself.
        """
        selector.validate_selector(path)
        return self._choose_part(selector, path)

    def _choose_part(self, selector: Selector, path: str) -> Mask:
        plain = replace(selector, ids=(), scope="", tags=(), excluding=None)
        by_identity = bool(selector.ids or selector.scope)
        if plain.all or plain.names_explicitly or not by_identity:
            if not (plain.all or plain.names_explicitly or plain.devices):
                plain = Selector(all=True)
            selection = self._index.select_rows(plain, allow_unknown=True, path=path)
            mask = selection.mask.copy()
            self.not_found += selection.not_found
        else:
            mask = np.zeros(len(self._index), bool)
        if by_identity:
            named = self._of_today(Selector(ids=selector.ids, scope=selector.scope), path)
            if selector.devices:
                devices = Selector(devices=selector.devices)
                named &= self._index.select_rows(devices, path=path).mask
            mask |= named
        for tag in selector.tags:
            mask &= self._of_today(Selector(tags=(tag,)), path)
        if selector.excluding is not None:
            mask &= ~self._choose_part(selector.excluding, f"{path}.excluding")
        return mask

    def _of_today(self, selector: Selector, path: str) -> Mask:
        with fields_at(selector=path):
            numbers, unknown = self._today(selector)
        self.not_found += unknown
        mask: Mask = np.isin(self._index.numbers, numbers)
        return mask


def refuse_unknown(
    not_found: list[str],
    where: str = "the snapshot",
    remedy: str = "",
    *,
    field: str = "selector",
) -> None:
    """Raise `NotFound` naming what a selector asked for and nothing has."""
    if not not_found:
        return
    shown = ", ".join(not_found[:10])
    more = f" and {len(not_found) - 10} more" if len(not_found) > 10 else ""
    raise NotFound(
        f"{field}: nothing in {where} is called {shown}{more}{remedy}",
        field=field,
        metadata={"resource": "pv", "id": not_found[0], "missing": str(len(not_found))},
    )
