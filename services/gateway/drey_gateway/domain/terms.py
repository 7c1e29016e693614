"""What a watch chooses after a client has added PVs to it and removed others: terms in order, of
which the last that matches a PV decides. Pure.

What a client does over days must not grow: a selector that comes again replaces itself, and PVs
that were added by name are removed by the same name without leaving a trace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from drey_core.errors import InvalidArgument, Reason
from drey_core.selector import Selector

MAX_TERMS = 100
MAX_NAMES = 200_000


@dataclass(frozen=True, slots=True)
class SelectorTerm:
    """PVs that are added, or removed."""

    added: bool
    selector: Selector


Terms = tuple[SelectorTerm, ...]


def needs_catalog(selector: Selector) -> bool:
    """Whether it speaks of ids, tags or scopes, which only the catalog's service knows."""
    inner = selector.excluding is not None and needs_catalog(selector.excluding)
    return bool(selector.ids or selector.tags or selector.scope) or inner


def add_selector(terms: Terms, selector: Selector) -> Terms:
    """What is chosen with these PVs too. `InvalidArgument` (TOO_MANY) where it grows too much."""
    kept = _without_overridden(terms, selector)
    if kept and kept[-1].added and _is_list(selector) and _is_list(kept[-1].selector):
        return _bound_terms(
            [*kept[:-1], SelectorTerm(True, _join_terms(kept[-1].selector, selector))]
        )
    return _bound_terms([*kept, SelectorTerm(True, selector)])


def remove_selector(terms: Terms, selector: Selector) -> Terms:
    """What is chosen without these PVs. `InvalidArgument` (TOO_MANY) where it grows too much."""
    kept = _without_overridden(terms, selector)
    while kept and not kept[0].added:
        del kept[0]
    if _is_list(selector):
        if all(_is_list(term.selector) for term in kept):
            return tuple(kept)
        if not kept[-1].added and _is_list(kept[-1].selector):
            kept[-1] = SelectorTerm(False, _join_terms(kept[-1].selector, selector))
            return _bound_terms(kept)
    return _bound_terms([*kept, SelectorTerm(False, selector)]) if kept else ()


def _without_overridden(terms: Terms, selector: Selector) -> list[SelectorTerm]:
    """The terms without what a further one by `selector` decides whatever they say."""
    kept = []
    for term in terms:
        if term.selector == selector:
            continue
        if _is_list(selector) and _is_list(term.selector):
            rest = _subtract_terms(term.selector, selector)
            if not rest.names_explicitly:
                continue
            term = replace(term, selector=rest)
        kept.append(term)
    return kept


def _is_list(selector: Selector) -> bool:
    """Whether it only names PVs one by one."""
    narrowed = selector.devices or selector.tags or selector.excluding is not None
    return not (selector.all or selector.globs or selector.scope or narrowed)


def _subtract_terms(selector: Selector, other: Selector) -> Selector:
    names, ids, numbers = set(other.names), set(other.ids), set(other.numbers)
    return Selector(
        names=tuple(x for x in selector.names if x not in names),
        ids=tuple(x for x in selector.ids if x not in ids),
        numbers=tuple(x for x in selector.numbers if x not in numbers),
    )


def _join_terms(selector: Selector, other: Selector) -> Selector:
    """Both, of which `selector` has nothing that `other` has."""
    return Selector(
        names=selector.names + tuple(dict.fromkeys(other.names)),
        ids=selector.ids + tuple(dict.fromkeys(other.ids)),
        numbers=selector.numbers + tuple(dict.fromkeys(other.numbers)),
    )


def _bound_terms(terms: Sequence[SelectorTerm]) -> Terms:
    listed = sum(
        len(t.selector.names) + len(t.selector.ids) + len(t.selector.numbers) for t in terms
    )
    for count, most, what in (
        (len(terms), MAX_TERMS, "selectors"),
        (listed, MAX_NAMES, "names, ids and numbers"),
    ):
        if count > most:
            raise InvalidArgument(
                f"the subscription would be made of {count} {what}, {most} are the most: replace"
                " it by one specification, or make several subscriptions",
                reason=Reason.TOO_MANY,
                field="action",
                metadata={"field": "action", "limit": str(most)},
            )
    return tuple(terms)
