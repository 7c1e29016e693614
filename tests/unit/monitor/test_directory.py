"""Versions of the directory and metadata by page."""

from __future__ import annotations

import numpy as np

from drey_ca.interface import InfoColumns
from drey_core.directory import MetadataPage
from drey_monitor.domain.directory import DirectoryCut, DirectoryState


def info(n: int, unit: bytes = b"mA", labels: tuple[bytes, ...] = ()) -> InfoColumns:
    nan = np.full(n, np.nan)
    return InfoColumns(
        slot=np.arange(n),
        kind=np.full(n, 11, np.uint8),
        count=np.ones(n, np.int64),
        state_time=np.zeros(n, np.int64),
        readable=np.ones(n, bool),
        writable=np.zeros(n, bool),
        precision=np.full(n, 3, np.int16),
        display_low=np.arange(n) * 1.0,
        display_high=nan,
        warning_low=nan,
        warning_high=nan,
        alarm_low=nan,
        alarm_high=nan,
        control_low=nan,
        control_high=np.arange(n) * 2.0,
        units=[unit] * n,
        labels=[labels] * n,
        host=["ioc:5064"] * n,
    )


def next_cut(state: DirectoryState) -> DirectoryCut:
    cut = state.cut_changes()
    assert cut is not None
    return cut


def test_catalog_grows_the_version_at_once():
    state = DirectoryState()
    state.set_catalog(7, {0: b"a", 3: b"b"})
    assert (state.version, state.catalog_version) == (1, 7)
    cut = next_cut(state)
    assert cut.version == 1
    assert cut.catalog == {0: b"a", 3: b"b"}
    assert sorted(cut.metadata) == [0, 3]
    assert cut.page_versions == {0: 1, 3: 1}
    assert state.cut_changes() is None
    state.set_catalog(7, {})
    assert state.cut_changes() is None


def test_a_version_without_pages_of_ours_is_told():
    state = DirectoryState()
    state.set_catalog(7, {0: b"a"})
    state.cut_changes()
    state.set_catalog(8, {})
    cut = next_cut(state)
    assert (cut.catalog_version, cut.changed) == (8, [])


def test_metadata_is_collected():
    state = DirectoryState()
    state.set_catalog(1, {0: b"a", 1: b"b"})
    state.cut_changes()
    state.update_channels(np.array([2, 3]), info(2))
    state.update_channels(np.array([4]), info(1, b"V", (b"off", b"on")))
    assert state.version == 1
    cut = next_cut(state)
    assert (cut.version, cut.changed) == (2, [0])
    assert cut.page_versions == {0: 2, 1: 1}
    page = cut.metadata[0]
    assert [page.units[i] for i in (1, 2, 3, 4)] == [b"", b"mA", b"mA", b"V"]
    assert page.limits[0, 3] == 1.0
    assert page.limits[7, 3] == 2.0
    assert page.labels == {4: (b"off", b"on")}
    assert page.precision.tolist()[1:5] == [-1, 3, 3, 3]


def test_metadata_beside_a_catalog_change_has_its_version():
    state = DirectoryState()
    state.set_catalog(1, {0: b"a", 1: b"b"})
    state.cut_changes()
    state.update_channels(np.array([2]), info(1))
    state.set_catalog(2, {1: b"c"})
    cut = next_cut(state)
    assert cut.changed == [0, 1]
    assert cut.page_versions[0] == cut.version


def test_a_cut_that_was_not_written_comes_again():
    state = DirectoryState()
    state.set_catalog(1, {0: b"a"})
    cut = next_cut(state)
    state.put_back(cut)
    assert next_cut(state).catalog == cut.catalog
    state.mark_all()
    again = next_cut(state)
    assert again.catalog == {0: b"a"}
    assert again.version > cut.version


def test_forgotten_and_inherited():
    state = DirectoryState()
    page = MetadataPage.empty_page(0)
    page.units[1], page.units[2], page.kind[1:3] = b"A", b"B", 11
    page.labels[2] = (b"x",)
    same = np.zeros(256, bool)
    same[[1, 2]] = True
    state.inherit_pages([page], {0: same})
    state.set_catalog(1, {0: b"a"})
    assert next_cut(state).metadata[0].units[1:3] == [b"A", b"B"]
    state.forget_channels(np.array([2]))
    cut = next_cut(state)
    assert cut.metadata[0].units[1:3] == [b"A", b""]
    assert cut.metadata[0].kind[1:3].tolist() == [11, 0]
    assert cut.metadata[0].labels == {}
    # what nobody has a page for is not kept
    state.update_channels(np.array([999]), info(1))
    assert state.cut_changes() is None
