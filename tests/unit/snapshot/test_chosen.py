"""The stored form of a selector."""

from drey_core.selector import Selector, TagFilter
from drey_snapshot.snapshots.domain.chosen import (
    SHOWN,
    decode_selector,
    encode_selector,
    shorten_selector,
)

EVERYTHING = Selector(
    all=False,
    names=("A", "é"),
    ids=("01980000-0000-7000-8000-000000000000",),
    numbers=(1, 2**63 - 1),
    globs=("*[ab]?",),
    devices=("D",),
    tags=(TagFilter("G"), TagFilter("H", ("x", "y"))),
    scope="s",
    excluding=Selector(all=True, excluding=Selector(names=("B",))),
)
STORED = (
    '{"devices":["D"],"except_":{"all":true,"except_":{"names":["B"]}},"globs":["*[ab]?"],'
    '"ids":["01980000-0000-7000-8000-000000000000"],"names":["A","\\u00e9"],'
    '"numbers":[1,9223372036854775807],"scope":"s","tags":[["G",[]],["H",["x","y"]]]}'
)


def test_it_is_written_so_for_ever():
    assert encode_selector(EVERYTHING).decode() == STORED
    assert decode_selector(STORED.encode()) == EVERYTHING
    assert encode_selector(Selector(all=True)) == b'{"all":true}'


def test_long_lists_are_shortened_at_every_depth():
    names = tuple(f"N{i}" for i in range(SHOWN + 1))
    long = Selector(names=names, excluding=Selector(numbers=tuple(range(2 * SHOWN))))
    short = shorten_selector(long)
    assert short.excluding is not None
    assert (short.names, len(short.excluding.numbers)) == (names[:SHOWN], SHOWN)
    assert shorten_selector(EVERYTHING) is EVERYTHING
