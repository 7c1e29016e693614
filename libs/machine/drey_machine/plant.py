"""What stands in the simulated machine: pure, and the same for the same numbers and seed."""

import csv
import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

AREAS = ("LI20", "LI21", "LI22", "LI23", "LI24", "LI25", "LI26", "LI27", "LI28", "LI29", "LI30")
REGIONS = {"LI20": "Injector", "LI30": "Undulator"}
FAMILIES = ("QUAD", "BEND", "XCOR", "YCOR", "SOLN")

# kind → (share of all PVs, most of them); at least one of each where there is room, in this order
KINDS: dict[str, tuple[float, int]] = {
    "motor": (0.02, 300),
    "dead": (0.01, 20),
    "refuse_asg": (0.005, 50),
    "refuse_disp": (0.005, 50),
    "enum": (0.01, 400),
    "string": (0.005, 200),
    "wave": (0.005, 200),
    "diagnostic": (0.10, 10_000),
    "alarm": (0.005, 100),
    "nan": (0.0, 3),
    "int64": (0.005, 100),
    "clip": (0.002, 20),
    "ramp": (0.002, 20),
    "sine": (0.002, 20),
    "counter": (0.0, 1),
    "string_bytes": (0.0, 2),
    "bo": (0.01, 400),
    "enum_readback": (0.002, 50),
    "int32": (0.005, 100),
    "longstring": (0.001, 10),
    "wave_char": (0.001, 10),
    "wave_string": (0.001, 10),
    "wave_empty": (0.0, 2),
    "infinite": (0.0, 2),
    "negative_zero": (0.0, 1),
    "epoch_1990": (0.0, 2),
    "never_processed": (0.0, 1),
    "pull_back": (0.002, 20),
    "read_only": (0.002, 20),
}
MAGNET = "magnet"
FEWEST, MOST = 20, 200_000
REFUSING = ("refuse_asg", "refuse_disp")

COLUMNS = (
    "Setpoint",
    "Readback",
    "Device",
    "Description",
    "Region",
    "Area",
    "Subsystem",
    "Abs Tolerance",
    "Rel Tolerance",
    "Readback Abs Tolerance",
    "Readback Rel Tolerance",
    "Read Only",
)


@dataclass(frozen=True, slots=True)
class SimPv:
    """One PV of the machine; an absent channel is "". `index` counts within the kind."""

    kind: str
    index: int
    setpoint: str
    readback: str
    device: str
    description: str
    region: str
    area: str
    subsystem: str
    abs_tolerance: float = 0.0
    readback_abs_tolerance: float = 0.0
    readback_rel_tolerance: float = 0.0
    read_only: bool = False

    @property
    def base_name(self) -> str:
        """The record's name without its last part."""
        return (self.setpoint or self.readback).removesuffix(".VAL").rpartition(":")[0]

    def cells(self) -> list[str]:
        """The row of the CSV, in the order of `COLUMNS`."""
        return [
            self.setpoint,
            self.readback,
            self.device,
            self.description,
            self.region,
            self.area,
            self.subsystem,
            _format_number(self.abs_tolerance),
            "",
            _format_number(self.readback_abs_tolerance),
            _format_number(self.readback_rel_tolerance),
            "true" if self.read_only else "",
        ]


def _format_number(value: float) -> str:
    return f"{value:g}" if value else ""


# kind → (device, subsystem, setpoint suffix, readback suffix, readback tolerance)
_SHAPES: dict[str, tuple[str, str, str, str, float]] = {
    "motor": ("COLL", "Motion", "MOTR.VAL", "MOTR.RBV", 0.01),
    "dead": ("GONE", "Magnet", "BDES", "BACT", 0.05),
    "refuse_asg": ("PLC", "Protection", "LIMIT", "", 0.0),
    "refuse_disp": ("INTL", "Protection", "TRIP", "", 0.0),
    "enum": ("KLYS", "RF", "MODE", "", 0.0),
    "bo": ("VALV", "Vacuum", "OPEN", "", 0.0),
    "enum_readback": ("KLYS", "RF", "", "STATE", 0.0),
    "string": ("PROF", "Diagnostics", "LABEL", "", 0.0),
    "string_bytes": ("PROF", "Diagnostics", "LATIN", "", 0.0),
    "longstring": ("CAMR", "Diagnostics", "PATH", "", 0.0),
    "int32": ("EVR", "Timing", "DELAY", "", 0.0),
    "int64": ("EVR", "Timing", "PULSEID", "", 0.0),
    "wave": ("LLRF", "RF", "TABLE", "", 0.0),
    "wave_char": ("CAMR", "Diagnostics", "TEXT", "", 0.0),
    "wave_string": ("CAMR", "Diagnostics", "NAMES", "", 0.0),
    "wave_empty": ("CAMR", "Diagnostics", "ROI", "", 0.0),
    "alarm": ("TEMP", "Cooling", "LIMIT", "", 0.0),
    "diagnostic": ("BPMS", "Diagnostics", "", "X", 1.0),
    "ramp": ("LLRF", "RF", "", "RAMP", 200.0),
    "sine": ("LLRF", "RF", "", "SINE", 4.0),
    "counter": ("EVR", "Timing", "", "COUNT", 1e12),
    "nan": ("FBCK", "Feedback", "GAIN", "", 0.0),
    "infinite": ("FBCK", "Feedback", "CEILING", "", 0.0),
    "negative_zero": ("FBCK", "Feedback", "OFFSET", "", 0.0),
    "epoch_1990": ("FBCK", "Feedback", "EPOCH", "", 0.0),
    "never_processed": ("FBCK", "Feedback", "IDLE", "", 0.0),
    "clip": ("GUN", "RF", "POWER", "", 0.0),
    "pull_back": ("GUN", "RF", "PHASE", "", 0.0),
    "read_only": ("LASR", "Laser", "KEY", "", 0.0),
}


@dataclass(frozen=True)
class Plant:
    """All PVs of a machine of `pvs` catalog entries (20 to 200,000).

    ValueError outside that range. `rows` holds magnets first, then the other kinds.
    """

    pvs: int = 2_000
    seed: int = 1

    def __post_init__(self) -> None:
        """Check the range."""
        if not FEWEST <= self.pvs <= MOST:
            raise ValueError(f"pvs: {self.pvs} is not between {FEWEST} and {MOST}")

    @cached_property
    def counts(self) -> dict[str, int]:
        """How many PVs there are of each kind; they add up to `pvs`."""
        room = self.pvs - self.pvs // 4
        counts: dict[str, int] = {}
        for kind, (share, most) in KINDS.items():
            want = most if share == 0.0 and self.pvs >= 200 else round(share * self.pvs)
            counts[kind] = min(max(1, want), most, max(0, room - sum(counts.values())))
        return {MAGNET: self.pvs - sum(counts.values()), **counts}

    @cached_property
    def rows(self) -> tuple[SimPv, ...]:
        """Every PV, dead ones included."""
        return tuple(self._make_rows())

    def names(self, kind: str) -> list[str]:
        """Setpoint channels of a kind, or its readbacks where it has no setpoints. KeyError."""
        if kind not in self.counts:
            raise KeyError(kind)
        return [row.setpoint or row.readback for row in self.rows if row.kind == kind]

    @property
    def dead_addresses(self) -> list[str]:
        """Channels that no IOC serves, setpoints and readbacks."""
        rows = [row for row in self.rows if row.kind == "dead"]
        return [name for row in rows for name in (row.setpoint, row.readback)]

    @property
    def refused_addresses(self) -> list[str]:
        """Setpoints whose writes are refused: no write access, or DISP."""
        return [row.setpoint for row in self.rows if row.kind in REFUSING]

    @property
    def setpoints(self) -> list[str]:
        """Every setpoint channel that is served."""
        return [row.setpoint for row in self.rows if row.setpoint and row.kind != "dead"]

    @property
    def readbacks(self) -> list[str]:
        """Every readback channel that is served."""
        return [row.readback for row in self.rows if row.readback and row.kind != "dead"]

    def catalog_csv(self) -> str:
        """The catalog as CSV text, layout as in use at LCLS."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(row.cells() for row in self.rows)
        return text.getvalue()

    def _make_rows(self) -> Iterator[SimPv]:
        for index in range(self.counts[MAGNET]):
            yield self._make_magnet(index)
        for kind in KINDS:
            for index in range(self.counts[kind]):
                yield self._make_other(kind, index)

    @staticmethod
    def _make_magnet(index: int) -> SimPv:
        family = FAMILIES[index % len(FAMILIES)]
        place = index // len(FAMILIES)
        area, unit = AREAS[place % len(AREAS)], 101 + place // len(AREAS)
        base = f"{family}:{area}:{unit}"
        text = f"{family.title()} {unit} of sector {area[2:]}"
        region = REGIONS.get(area, "Cu Linac")
        return SimPv(
            *(MAGNET, index, f"{base}:BDES", f"{base}:BACT", family, text),
            *(region, area, "Magnet", 1e-6, 0.05, 0.001),
        )

    @staticmethod
    def _make_other(kind: str, index: int) -> SimPv:
        device, subsystem, setpoint, readback, tolerance = _SHAPES[kind]
        area, unit = AREAS[index % len(AREAS)], 901 + index // len(AREAS)
        base = f"{device}:{area}:{unit}"
        text = f"{kind.replace('_', ' ')} {index + 1}"
        return SimPv(
            kind,
            index,
            f"{base}:{setpoint}" if setpoint else "",
            f"{base}:{readback}" if readback else "",
            device,
            text,
            REGIONS.get(area, "Cu Linac"),
            area,
            subsystem,
            readback_abs_tolerance=tolerance,
            read_only=kind == "read_only",
        )

    def chooser(self) -> random.Random:
        """A fresh source of the machine's own numbers."""
        return random.Random(self.seed)
