"""A machine made from the channels of a plan: their records, and what follows a write.

Pure. `place_channels` says where each channel is served: at its own address where a record of EPICS
base has such a field, else at a record of its own, for nobody but the rehearsal ever asks for it.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

NUMBERS = frozenset({"float64", "float32", "int32", "int16", "uint8", "enum"})
"""Kinds of which one element is a number to a link between records."""
MOST_STATES = 16
_FTVL = {
    **{"float64": "DOUBLE", "float32": "FLOAT", "int32": "LONG", "int16": "SHORT"},
    **{"uint8": "UCHAR", "enum": "ENUM", "string": "STRING"},
}
KINDS = frozenset(_FTVL)
"""Kinds of values that Channel Access carries."""
_SHORT_STRING = 39
_LONGEST_NAME = 60
_STATES = (
    *("ZR", "ON", "TW", "TH", "FR", "FV", "SX", "SV"),
    *("EI", "NI", "TE", "EL", "TV", "TT", "FT", "FF"),
)
_EVERY_RECORD = {"DISP": "uint8", "DISA": "int16", "DESC": "string"}
_LIMITS = ("DRVH", "DRVL", "HOPR", "LOPR", "HIHI", "HIGH", "LOW", "LOLO")
_FIELDS = {
    "ao": {**_EVERY_RECORD, **dict.fromkeys(_LIMITS, "float64"), "PREC": "int16"},
    "longout": {**_EVERY_RECORD, **dict.fromkeys(_LIMITS, "int32")},
}
_ADDRESS = re.compile(r"(?P<record>[^\s\"'.$]+)(?:\.(?P<field>[A-Z][A-Z0-9_]*)?)?\$?")


@dataclass(frozen=True, slots=True)
class SimChannel:
    """One channel: its kind, the most elements that it takes, and its value.

    A value is a number, a text (bytes that are no UTF-8 by `surrogateescape`), or a list of them.
    `record` and `field` are where it is served.
    """

    address: str
    kind: str
    count: int = 1
    value: Any = None
    labels: Sequence[str] = ()
    low: float | None = None
    high: float | None = None
    units: str = ""
    precision: int | None = None
    record: str = ""
    field: str = "VAL"
    long: bool = False
    """Served as characters, whatever the value's length."""

    @property
    def single_value(self) -> bool:
        """One element, or one text of any length."""
        return self.count == 1 or self.is_long

    @property
    def is_long(self) -> bool:
        """A text that is served as characters: `X.VAL$`."""
        if self.kind != "string" or not isinstance(self.value, str):
            return False
        long = len(_text_bytes(self.value)) > _SHORT_STRING
        return self.address.endswith("$") or (self.count == 1 and long)

    @property
    def served_at(self) -> str:
        """The address for a client."""
        if self.record.startswith(_HELPER):
            return f"{self.record}.VAL$" if self.long else self.record
        return f"{self.address}.VAL$" if self.long and "$" not in self.address else self.address

    @property
    def link_text(self) -> str:
        """The field for a link of another record."""
        return f"{self.record}.{self.field}"


@dataclass(frozen=True, slots=True)
class SimWrite:
    """What a write of a setpoint does: `seconds` later its readback and its done channel follow.

    When the setpoint is at `target` the readback is at `reached`; None: it follows the setpoint.
    Addresses of channels; empty: there is none.
    """

    setpoint: str
    seconds: float = 0.0
    readback: str = ""
    target: float | None = None
    reached: Any = None
    done: str = ""
    done_value: float = 1.0


@dataclass(frozen=True, slots=True)
class SimMachine:
    """All that is served. Links between channels are by the addresses that they really have."""

    channels: Sequence[SimChannel]
    writes: Sequence[SimWrite] = ()
    aliases: Mapping[str, str] | None = None
    """Further names of records."""

    def write_file(self, path: Path) -> None:
        path.write_text(json.dumps(asdict(self)), encoding="ascii")

    @classmethod
    def read_file(cls, path: Path) -> SimMachine:
        found = json.loads(path.read_bytes())
        return cls(
            [SimChannel(**each) for each in found["channels"]],
            [SimWrite(**each) for each in found["writes"]],
            found["aliases"],
        )


def obstacle_text(channel: SimChannel) -> str:
    """Why no record can be such a channel; empty: one can."""
    match = _ADDRESS.fullmatch(channel.address)
    if match is None:
        return "its address is none of a record's field"
    if len(match["record"].encode()) > _LONGEST_NAME:
        return f"the name of its record is longer than {_LONGEST_NAME} bytes"
    if channel.kind not in KINDS:
        return f"Channel Access has no values of the kind {channel.kind or 'unknown'}"
    if channel.value is None:
        return "it has no value"
    if channel.kind == "enum" and channel.single_value:
        if not 0 <= channel.value < MOST_STATES or len(channel.labels) > MOST_STATES:
            return f"a simulated enumeration has {MOST_STATES} states at most"
        if any(len(label.encode()) > 25 for label in channel.labels):
            return "a label of a simulated enumeration has 25 bytes at most"
    return ""


def place_channels(
    channels: Iterable[SimChannel], records: Mapping[str, str]
) -> dict[str, SimChannel]:
    """Each channel, by its address, with the record and field at which it is served.

    `records`: what the record of an address is really called, where that is another name. Only
    channels without an obstacle.
    """
    by_address = {each.address: each for each in channels}
    parts = {address: _record_and_field(address, records) for address in by_address}
    mains = {
        record: by_address[address] for address, (record, field) in parts.items() if field == "VAL"
    }
    placed: dict[str, SimChannel] = {}
    taken = set(mains)
    for address, channel in by_address.items():
        record, field = parts[address]
        main = mains.get(record)
        fields = {} if main is None else _FIELDS.get(_record_type(main), _EVERY_RECORD)
        if field != "VAL" and (fields.get(field) != channel.kind or not channel.single_value):
            record, field = _free_name(taken), "VAL"
        elif field == "VAL" and main is not channel:  # another address of the same field
            record = _free_name(taken)
        placed[address] = replace(channel, record=record, field=field, long=channel.is_long)
    return placed


def known_aliases(placed: Iterable[SimChannel]) -> dict[str, str]:
    """Further names of the records at which channels are served by what they are really called."""
    aliases = {}
    for channel in placed:
        name = _record_and_field(channel.address, {})[0]
        if channel.record != name and not channel.record.startswith(_HELPER):
            aliases[name] = channel.record
    return aliases


def record_text(machine: SimMachine) -> tuple[bytes, list[tuple[str, str, Any]]]:
    """The database, and what is written when it runs: (address, kind, value), in order."""
    maker = _RecordMaker(machine)
    return maker.database(), maker.later


_HELPER = "rehearsal:"


def _free_name(taken: set[str]) -> str:
    number = len(taken)
    while f"{_HELPER}{number}" in taken:
        number += 1
    taken.add(f"{_HELPER}{number}")
    return f"{_HELPER}{number}"


def _record_and_field(address: str, records: Mapping[str, str]) -> tuple[str, str]:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(address)
    return records.get(address) or match["record"], match["field"] or "VAL"


def _text_bytes(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


Fields = dict[str, Any]


def _record_type(channel: SimChannel) -> str:
    if not (channel.single_value or channel.long):
        return "waveform"
    if channel.kind == "enum":
        return "bo" if len(channel.labels) == 2 and channel.value < 2 else "mbbo"
    if channel.kind == "string":
        return "lso" if channel.long else "stringout"
    return {"float64": "ao", "int32": "longout"}.get(channel.kind, "waveform")


class _RecordMaker:
    """Writes the records of one machine."""

    def __init__(self, machine: SimMachine) -> None:
        self._machine = machine
        self._channels = {channel.address: channel for channel in machine.channels}
        self._taken = {channel.record for channel in machine.channels}
        self._calculated: dict[str, Fields] = {}
        self._fields: dict[str, Fields] = {}
        for channel in machine.channels:
            if channel.field != "VAL":
                self._fields.setdefault(channel.record, {})[channel.field] = channel.value
        self._helpers: list[bytes] = []
        self._switched: list[str] = []
        self.later: list[tuple[str, str, Any]] = []

    def database(self) -> bytes:
        for write in self._machine.writes:
            if self._channels[write.setpoint].field == "VAL":
                self._add_follower(write)
        out = [self._record_of(each) for each in self._machine.channels if each.field == "VAL"]
        aliases = (self._machine.aliases or {}).items()
        names = [f'alias("{record}","{name}")\n'.encode() for name, record in aliases]
        # What follows a write must not be set off by the values of the start.
        self.later += [(f"{name}.DISA", "int16", 0) for name in self._switched]
        return b"".join([*out, *self._helpers, *names])

    def _record_of(self, channel: SimChannel) -> bytes:
        calculated = self._calculated.get(channel.address)
        kind = _record_type(channel) if calculated is None else "calc"
        fields: Fields = {"PINI": "YES"}
        if calculated is not None:
            fields |= calculated | {"VAL": channel.value}
            self.later.append((f"{channel.record}.PROC", "int16", 1))
        elif kind == "waveform":
            fields |= {"FTVL": _FTVL[channel.kind], "NELM": max(1, channel.count)}
            values = channel.value if isinstance(channel.value, list) else [channel.value]
            self.later.append((channel.record, channel.kind, values))
        elif kind == "lso":
            size = len(_text_bytes(channel.value)) + 1
            fields["SIZV"] = min(max(256, channel.count, size), 65_535)
            self.later.append((f"{channel.record}.VAL$", "text", channel.value))
        else:
            fields["VAL"] = channel.value
        if kind in ("bo", "mbbo"):
            fields |= _label_fields(channel.labels, two=kind == "bo")
        if kind in ("ao", "longout") and channel.low is not None and channel.high is not None:
            fields |= {"DRVH": channel.high, "DRVL": channel.low}
        if kind in ("ao", "calc", "waveform") and channel.precision is not None:
            fields["PREC"] = channel.precision
        if kind in ("ao", "longout", "calc", "waveform") and channel.units:
            fields["EGU"] = channel.units.encode()[:15]
        fields |= self._fields.get(channel.record, {})
        return _record_lines(kind, channel.record, fields)

    def _add_follower(self, write: SimWrite) -> None:
        """Records by which what a write does follows it."""
        setpoint = self._channels[write.setpoint]
        readback = self._channels.get(write.readback)
        mover = "" if readback is None else self._add_move(write, setpoint, readback)
        done = self._channels.get(write.done)
        head = mover
        if write.seconds > 0:
            head = _free_name(self._taken)
            steps: Fields = {"SELM": "All", "DISA": 1}
            if done is not None:
                steps |= {"DO3": write.done_value, "LNK3": f"{done.link_text} PP"}
            # without a link there would be no wait either
            moved = f"{mover}.PROC PP" if mover else f"{head}.DO2 NPP"
            steps |= {"DO2": 1, "DLY2": write.seconds, "LNK2": moved}
            self._add_helper("seq", head, steps)
            if done is not None:
                # within the processing of the write, as a motor does: a seq begins a moment later
                begun, leave = (
                    _free_name(self._taken),
                    {"INPA": 1.0 - write.done_value, "CALC": "A"},
                )
                out: Fields = {"OUT": f"{done.link_text} PP", "DISA": 1, "FLNK": head}
                self._add_helper("calcout", begun, leave | out)
                head = begun
        if head:
            self._fields.setdefault(setpoint.record, {})["FLNK"] = head

    def _add_helper(self, kind: str, name: str, fields: Fields) -> None:
        self._helpers.append(_record_lines(kind, name, fields))
        self._switched.append(name)

    def _add_move(self, write: SimWrite, setpoint: SimChannel, readback: SimChannel) -> str:
        """The record whose processing brings the readback to where it belongs; empty: none does."""
        number = setpoint.kind in NUMBERS and setpoint.single_value
        if readback.kind in NUMBERS and readback.single_value:
            calculation = _calculation_fields(write, setpoint, readback, number=number)
            if calculation is None:
                return ""
            if readback.kind == "float64":
                self._calculated[readback.address] = calculation
                return readback.record
            out = {"OUT": f"{readback.link_text} PP", "DISA": 1}
            name = _free_name(self._taken)
            self._add_helper("calcout", name, calculation | out)
            return name
        alike = setpoint.kind == readback.kind and setpoint.single_value == readback.single_value
        if write.reached is None and not alike:
            return ""
        kind = _record_type(readback)
        fields: Fields = {"OUT": f"{readback.link_text} PP", "DISA": 1}
        name = _free_name(self._taken)
        if write.reached is None:
            fields |= {"OMSL": "closed_loop", "DOL": f"{setpoint.link_text} NPP"}
        if kind == "waveform":
            kind = "aao"
            fields |= {"FTVL": _FTVL[readback.kind], "NELM": max(1, readback.count)}
            if write.reached is not None:
                self.later.append((name, readback.kind, write.reached))
        elif kind == "lso":
            fields["SIZV"] = 4096
            if write.reached is not None:
                self.later.append((f"{name}.VAL$", "text", write.reached))
        elif write.reached is not None:
            fields["VAL"] = write.reached
        self._add_helper(kind, name, fields)
        return name


def _calculation_fields(
    write: SimWrite, setpoint: SimChannel, readback: SimChannel, *, number: bool
) -> Fields | None:
    """A readback as a function of its setpoint: where it is now, and where it is at the target."""
    if not number:
        return None if write.reached is None else {"INPF": write.reached, "CALC": "F"}
    begin, first = float(setpoint.value), float(readback.value)
    if not (math.isfinite(begin) and math.isfinite(first)):
        begin, first = 0.0, 0.0
    fields: Fields = {"INPA": f"{setpoint.link_text} NPP", "INPB": first, "INPC": begin}
    if write.reached is None or write.target is None:
        return fields | {"CALC": "B+(A-C)"}
    way, span = write.target - begin, float(write.reached) - first
    slope = span / way if way else 1.0
    fields |= {"INPD": slope if math.isfinite(slope) else 1.0}
    return fields | {"INPE": write.target, "INPF": write.reached, "CALC": "A=E?F:B+(A-C)*D"}


def _label_fields(labels: Sequence[str], *, two: bool) -> Fields:
    if two:
        return {"ZNAM": labels[0].encode(), "ONAM": labels[1].encode()}
    names = {f"{state}ST": label.encode() for state, label in zip(_STATES, labels, strict=False)}
    numbers = zip(_STATES, range(len(labels)), strict=False)
    return {**names, **{f"{state}VL": number for state, number in numbers}}


def _record_lines(kind: str, name: str, fields: Fields) -> bytes:
    lines = [f'record({kind},"{name}"){{\n'.encode()]
    for key, value in fields.items():
        lines.append(b'field(%s,"%s")\n' % (key.encode(), _field_text(value)))
    return b"".join([*lines, b"}\n"])


_SPECIAL = re.compile(rb"[\x00-\x1f\x7f\"\\\\]")


def _field_text(value: Any) -> bytes:
    if isinstance(value, float):
        return repr(value).encode()
    if isinstance(value, str):
        value = _text_bytes(value)
    if not isinstance(value, bytes):
        return str(value).encode()
    return _SPECIAL.sub(lambda match: b"\\x%02x" % match[0][0], value)
