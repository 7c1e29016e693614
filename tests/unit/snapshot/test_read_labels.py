"""Labels of enums that were read past the monitors."""

from __future__ import annotations

import numpy as np
import pytest

from drey_core.directory import MetadataIndex, MetadataPage
from drey_core.page_storage import store_text
from drey_core.pages import hash_bytes
from drey_runtime.directory_codec import encode_metadata
from drey_snapshot.snapshots.adapters.metadata import KnownMetadata, KnownPage
from drey_snapshot.snapshots.domain.read_labels import labels_of_number

OLD, NEW = (b"off", b"on"), (b"on", b"off")


@pytest.mark.parametrize(
    ("number", "text", "server", "image", "wanted"),
    [
        (0, b"on", NEW, OLD, NEW),  # the monitor does not know yet that the IOC is another
        (1, b"on", NEW, OLD, OLD),  # the labels changed back since this process connected
        (1, b"on", OLD, OLD, OLD),
        (1, b"off", OLD, OLD, OLD),  # the value moved between the two reads
        (1, b"run", (b"off", b"run"), (), (b"off", b"run")),  # no monitor has it
        (1, b"run", OLD, NEW, ()),  # they changed, and neither has heard of it
        (5, b"", OLD, OLD, ()),  # beyond the labels: a number alone
        (1, None, OLD, OLD, OLD),  # its label could not be read
        (1, None, OLD, NEW, ()),
    ],
)
def test_labels_are_those_that_the_label_of_now_bears_out(number, text, server, image, wanted):
    assert labels_of_number(number, text, (server, image)) == wanted


def known(page: MetadataPage) -> KnownMetadata:
    raw = encode_metadata(page)
    entry = KnownPage((3, 4), hash_bytes(raw), store_text(raw), page)
    return KnownMetadata({page.number: entry}, MetadataIndex([page]))


def test_other_labels_make_another_page_and_leave_the_rest():
    page = MetadataPage.empty_page(2)
    page.labels.update({5: OLD, 6: OLD, 7: OLD})
    page.units[9] = b"mA"
    before = known(page)
    after = before.with_labels({2 * 256 + 5: NEW, 2 * 256 + 6: (), 3 * 256 + 1: OLD})
    assert after.known[2].page.labels == {5: NEW, 7: OLD}
    assert after.known[2].page.units[9] == b"mA"
    assert after.known[2].hash != before.known[2].hash
    assert after.known[2].hash == hash_bytes(encode_metadata(after.known[2].page))
    assert after.index.labels(2 * 256 + 5) == NEW
    assert after.known[3].page.labels == {1: OLD}
    assert np.array_equal(after.known[3].page.kind, MetadataPage.empty_page(3).kind)
    # what others hold is as it was
    assert before.known[2].page.labels == {5: OLD, 6: OLD, 7: OLD}
    assert before.index.labels(2 * 256 + 5) == OLD
