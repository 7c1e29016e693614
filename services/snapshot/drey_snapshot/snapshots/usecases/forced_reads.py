"""Reads of the channels themselves, past the monitors."""

from __future__ import annotations

import asyncio

import numpy as np

from drey_core.directory import Directory
from drey_core.errors import Unavailable
from drey_core.pages import PAGE_SHIFT
from drey_core.values import I8, Columns, State
from drey_snapshot.snapshots.adapters.live import LiveSource
from drey_snapshot.snapshots.adapters.metadata import KnownMetadata
from drey_snapshot.snapshots.adapters.reader import CaReader
from drey_snapshot.snapshots.domain.read_labels import labels_of_number

_LABELS_S = 2.0
CHANNEL_ACCESS = 1
"""`drey.catalog.v1.Protocol` of Channel Access."""


class ForcedReads:
    """Values of channels by their servers, and what only the image knows beside."""

    def __init__(self, reader: CaReader, live: LiveSource) -> None:
        self._reader, self._live = reader, live

    async def check_labels(
        self, metadata: KnownMetadata, enums: Columns, timeout: float
    ) -> KnownMetadata:
        """Give enums that were read the labels that their servers have now.

        Those of the monitors may be older: an IOC that returned with others is reached by a read
        before its monitor has it back.
        """
        if not len(enums):
            return metadata
        said = await self._reader.read_labels(enums.key, min(timeout, _LABELS_S))
        other = {}
        for channel, number, (labels, text) in zip(
            enums.key.tolist(), enums.data.tolist(), said, strict=True
        ):
            known_labels = metadata.index.labels(channel)
            chosen = labels_of_number(number, text, (labels, known_labels))
            if chosen != known_labels:
                other[channel] = chosen
        if not other:
            return metadata
        return await asyncio.to_thread(metadata.with_labels, other)

    async def recall_connected(self, read: Columns) -> None:
        """Tell what was connected once from what never was, where only the image knows it.

        The table of this process has seen no more than its own reads.
        """
        never = np.flatnonzero(read.state == State.NEVER_CONNECTED)
        if not len(never):
            return
        channels = read.key[never]
        try:
            live = await self._live.read_pages(np.unique(channels >> PAGE_SHIFT))
        except Unavailable:
            return  # a forced read is for when the image is away
        seen = live.pages.columns_of_channels(channels).state
        known_rows = (seen == State.CONNECTED) | (seen == State.DISCONNECTED)
        read.state[never[known_rows]] = State.DISCONNECTED

    async def read_channels(self, directory: Directory, channels: I8, timeout: float) -> Columns:
        """Read channels themselves; those of a protocol that is not spoken are UNSUPPORTED."""
        rows = directory.pv_rows_of_channels(channels)
        setpoint = directory.setpoint_channel[rows] == channels
        addresses = [
            directory.setpoint_address[row] if is_setpoint else directory.readback_address[row]
            for row, is_setpoint in zip(rows.tolist(), setpoint.tolist(), strict=True)
        ]
        spoken = directory.protocol[rows] == CHANNEL_ACCESS
        asked = np.flatnonzero(spoken)
        values = await self._reader.read_channels(
            channels[asked], [addresses[i] for i in asked.tolist()], directory.channels, timeout
        )
        if spoken.all():
            return values
        silent = Columns.empty_columns(len(channels) - len(asked)).with_key(channels[~spoken])
        silent.state[:] = State.UNSUPPORTED
        return Columns.concat_columns([values, silent])
