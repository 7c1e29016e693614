"""Pages cut by number and by bytes: everything once, in order, and nothing too large."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drey.catalog.v1 import catalog_pb2, catalog_service_pb2
from drey_core.errors import InvalidArgument
from drey_core.token import decode_page_token, query_hash
from drey_runtime import paging
from drey_runtime.paging import check_page_size, cut_page, in_chunks

QUERY = query_hash("all")


def pv(item: tuple[int, int]) -> catalog_pb2.Pv:
    number, size = item
    return catalog_pb2.Pv(number=number, description="x" * size)


@given(st.lists(st.integers(0, 2 << 20), max_size=12), st.integers(1, 8))
def test_pages_hold_everything_once_and_fit(sizes, page_size):
    items = list(enumerate(sizes, start=1))
    seen, token, pages = [], "", 0
    while True:
        position = decode_page_token("pvs", QUERY, token, (int,))
        after = int(position[0]) if position else 0
        found = [item for item in items if item[0] > after][: page_size + 1]
        page, token = cut_page("pvs", QUERY, found, page_size, pv, lambda item: [item[0]])
        answer = catalog_service_pb2.ListPvsResponse(pvs=page, next_page_token=token)
        assert answer.ByteSize() < 4 << 20
        assert len(page) <= page_size
        seen += [p.number for p in page]
        pages += 1
        if not token:
            break
        assert page, "a page that is not the last has something"
    assert seen == [number for number, _ in items]
    # never more pages than two in each of which there is half of what fits
    assert pages <= 1 + len(items) // page_size + 2 * sum(sizes) // (paging.MAX_PAGE_BYTES // 2)


def test_an_item_larger_than_a_page_is_a_page():
    found = [(1, 5 << 20), (2, 1)]
    page, token = cut_page("pvs", QUERY, found, 10, pv, lambda item: [item[0]])
    assert ([p.number for p in page], decode_page_token("pvs", QUERY, token, (int,))) == ([1], [1])


@given(st.lists(st.integers(0, 50), max_size=30))
def test_chunks_hold_everything_in_order(sizes):
    chunks = list(in_chunks(sizes, lambda size: size, 60))
    assert [size for chunk in chunks for size in chunk] == sizes
    assert all(len(chunk) == 1 or sum(chunk) + 6 * len(chunk) <= 60 for chunk in chunks)


def test_a_page_size_is_the_default_or_at_most_the_maximum():
    assert [check_page_size(given) for given in (0, 1, 1000, 2**31 - 1)] == [100, 1, 1000, 1000]
    assert check_page_size(6000, most=5000) == 5000
    with pytest.raises(InvalidArgument) as refused:
        check_page_size(-1)
    assert refused.value.field == "page_size"
