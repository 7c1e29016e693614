"""Finds the PVs that a client means, and says how its names are understood."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from drey_core.selector import Link
from drey_core.values import I8
from drey_gateway.context import WatchContext
from drey_gateway.domain.terms import Terms, needs_catalog
from drey_runtime.mapping.selector import selector_to_proto
from drey_runtime.waiting import choose_off_loop


class Resolved(NamedTuple):
    """What a selector means by the present directory."""

    rows: I8
    not_found: list[str]
    links: dict[str, list[Link]]
    """Names that are not the PVs' own, and the PVs that they stand for."""


async def resolve_terms(context: WatchContext, terms: Terms, allow_unknown: bool) -> Resolved:
    """Rows, and how names are understood. Raises as the selector's rules say; what is removed may
    be unknown."""
    while True:
        index = context.live.selector_index
        chosen = np.zeros(len(index), bool)
        not_found: list[str] = []
        links: dict[str, list[Link]] = {}
        for added, selector in ((t.added, t.selector) for t in terms):
            if needs_catalog(selector):
                numbers, missing = await context.resolver.resolve_selector(
                    selector_to_proto(selector), allow_unknown or not added
                )
                rows = context.live.directory.rows_of(np.sort(numbers))
                rows = rows[rows >= 0]
            else:
                allowed = allow_unknown or not added
                choose = partial(index.select_rows, selector, allow_unknown=allowed)
                resolved = await choose_off_loop(choose, takes_long=selector.takes_long)
                rows, missing = resolved.rows, resolved.not_found
            if context.live.selector_index is not index:
                break
            chosen[rows] = added
            if added:
                look_up = partial(index.links, selector.names)
                links |= await choose_off_loop(look_up, takes_long=selector.takes_long)
                not_found += missing
        if context.live.selector_index is index:
            return Resolved(np.flatnonzero(chosen), not_found, links)
