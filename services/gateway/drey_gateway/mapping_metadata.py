"""Metadata of PVs as it is sent: what channels have in common is encoded once."""

from __future__ import annotations

from collections.abc import Iterator

from drey_core.directory import Directory, MetadataIndex, MetadataPage
from drey_core.pages import PAGE_MASK, PAGE_SHIFT, PAGE_SLOTS
from drey_core.values import I8
from drey_core.wire_values import wrap_payload
from drey_gateway import mapping
from drey_gateway.domain.watch import Fields

_ROWS = 500
"""PVs of a message."""
_MOST_KNOWN = 10_000
_NOTHING = [b""] * PAGE_SLOTS


class MetadataEncoder:
    """`MetadataRow` messages. Of a channel all but its address is kept, encoded, by page."""

    def __init__(self) -> None:
        self._pages: dict[int, tuple[MetadataPage, list[bytes]]] = {}
        self._known: dict[tuple[object, ...], bytes] = {}

    def encode_rows(
        self, rows: I8, directory: Directory, metadata: MetadataIndex, wanted: Fields
    ) -> Iterator[list[bytes]]:
        """Encoded messages of PVs by row of the directory, as many at a time as fit into one."""
        roles = []
        if wanted.setpoint:
            roles.append((3, directory.setpoint_channel, directory.setpoint_address))
        if wanted.readback:
            roles.append((4, directory.readback_channel, directory.readback_address))
        for start in range(0, len(rows), _ROWS):
            chosen = rows[start : start + _ROWS]
            numbers = directory.pv_number[chosen].astype("<i8").tobytes()
            parts = [
                [
                    b"\x09"
                    + numbers[8 * i : 8 * i + 8]
                    + wrap_payload(2, directory.names[row].encode())
                ]
                for i, row in enumerate(chosen.tolist())
            ]
            for field, channels, addresses in roles:
                found = zip(parts, chosen.tolist(), channels[chosen].tolist(), strict=True)
                for part, row, channel in found:
                    if channel:
                        rest = self._encoded_page(channel >> PAGE_SHIFT, metadata)
                        address = addresses[row].encode()
                        head = wrap_payload(1, address) if address else b""
                        part.append(wrap_payload(field, head + rest[channel & PAGE_MASK]))
            yield [b"".join(part) for part in parts]

    def _encoded_page(self, number: int, metadata: MetadataIndex) -> list[bytes]:
        """Of each channel of a page all but the address; kept until there is another such page."""
        page = metadata.pages.get(number)
        if page is None:
            return _NOTHING
        held = self._pages.get(number)
        if held is None or held[0] is not page:
            self._pages[number] = held = (page, list(self._encode_page(page, metadata)))
        return held[1]

    def _encode_page(self, page: MetadataPage, metadata: MetadataIndex) -> Iterator[bytes]:
        limits = page.limits.T.tobytes()
        columns = (page.kind, page.count, page.readable, page.writable, page.precision)
        for slot, scalars in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
            rest = (limits[64 * slot : 64 * slot + 64], page.units[slot], page.hosts[slot])
            key = (*scalars, *rest, page.labels.get(slot, ()))
            encoded = self._known.get(key)
            if encoded is None:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                known = metadata.metadata_of(page.number << PAGE_SHIFT | slot)
                message = None if known is None else mapping.channel_metadata(known)
                encoded = self._known[key] = message.SerializeToString() if message else b""
            yield encoded
