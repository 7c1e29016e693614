"""Database text of the simulated machine, one function a kind of PV."""

from collections.abc import Callable

from drey_machine.plant import MAGNET, Plant, SimPv

# near-equal periods, each with a scan thread of its own, so that scans don't fall in one burst
SCANS = ("2.1 second", "2 second", "1.9 second", "1 second", ".5 second")
_FAST = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)

MENU_SCAN = """menu(menuScan) {
 choice(menuScanPassive,"Passive")
 choice(menuScanEvent,"Event")
 choice(menuScanI_O_Intr,"I/O Intr")
 choice(menuScan10_second,"10 second")
 choice(menuScan5_second,"5 second")
 choice(menuScan2_1_second,"2.1 second")
 choice(menuScan2_second,"2 second")
 choice(menuScan1_9_second,"1.9 second")
 choice(menuScan1_second,"1 second")
 choice(menuScan_5_second,".5 second")
 choice(menuScan_2_second,".2 second")
 choice(menuScan_1_second,".1 second")
 choice(menuScan_05_second,".05 second")
 choice(menuScan_02_second,".02 second")
}
"""

ACCESS = """ASG(DEFAULT) { RULE(1,READ) RULE(1,WRITE) }
ASG(LOCKED) { RULE(1,READ) }
"""

LABELS = (
    "Off",
    "Standby, cold",
    "Standby, warm",
    "Ramping up, slow",
    "Ramping up, fast",
    "On, open loop",
    "On, closed loop",
    "Hold",
    "Ramping down",
    "Fault, latched",
    "Fault, clearing",
    "Interlock, door",
    "Interlock, water",
    "Maintenance",
    "Calibration, rf",
    "Unknown, ask RF",
)
_STATES = (
    *("ZR", "ON", "TW", "TH", "FR", "FV", "SX", "SV"),
    *("EI", "NI", "TE", "EL", "TV", "TT", "FT", "FF"),
)

Fields = dict[str, object]


def scan_for(rate: float) -> str:
    """The scan menu's choice nearest to `rate` Hz, at most 50."""
    period = min(_FAST, key=lambda p: abs(p - 1 / rate))
    return f"{period:g} second".removeprefix("0")


class RecordDatabase:
    """Writes the records of a plant.

    `rate`: scans per second of the fast magnets, the first `fast_share` of all (0: none is fast).
    `variant` "changed" is the machine after an upgrade: other labels, other types, other lengths.
    """

    def __init__(
        self, plant: Plant, rate: float = 0.0, fast_share: float = 0.1, variant: str = "normal"
    ) -> None:
        self._plant = plant
        self._rate = rate
        self._fast = round(plant.counts[MAGNET] * fast_share) if rate > 0 else 0
        self._changed = variant == "changed"
        self._random = plant.chooser()
        self._out: list[bytes] = []
        self._makers: dict[str, Callable[[SimPv], None]] = {
            kind: getattr(self, f"_add_{kind}") for kind in plant.counts if kind != "dead"
        }

    def database_text(self) -> bytes:
        """The whole database. Bytes, since one record holds a string that isn't UTF-8."""
        self._out.clear()
        for row in self._plant.rows:
            if row.kind != "dead":
                self._makers[row.kind](row)
        return b"".join(self._out)

    def _add_record(self, kind: str, name: str, **fields: object) -> None:
        lines = [f'record({kind},"{name}"){{\n'.encode()]
        for key, value in fields.items():
            if isinstance(value, bytes):
                lines.append(b'field(%s,"%s")\n' % (key.encode(), value))
            else:
                lines.append(f'field({key},"{value}")\n'.encode())
        self._out.append(b"".join([*lines, b"}\n"]))

    def _add_array(self, name: str, link: str, **fields: object) -> None:
        """A waveform whose INP is a constant in JSON, quoted: the parser of bare JSON is small."""
        escaped = link.replace('"', '\\"')
        self._add_record("waveform", name, **fields, INP=escaped, PINI="YES")

    # ---- magnets, motors, diagnostics

    def _add_magnet(self, row: SimPv) -> None:
        current = round(self._random.uniform(-80, 80), 3)
        fast = row.index < self._fast
        noisy = row.index % 5 == 0
        scan = (
            scan_for(self._rate) if fast else SCANS[(0, 1, 2, 0, 1, 2, 0, 1, 3, 4)[row.index % 10]]
        )
        if not fast and row.index % 50 not in (8, 9):
            scan = SCANS[row.index % 3]
        self._add_record(
            "ao", row.setpoint, DESC=row.description, VAL=current, PREC=4, EGU="A", PINI="YES",
            DRVH=100, DRVL=-100, HOPR=100, LOPR=-100, FLNK=row.readback,
        )  # fmt: skip
        # most of the way at once, the rest at the next scans; the noise is far below the tolerance
        self._add_record(
            "calc", row.readback, SCAN=scan, INPA=row.setpoint, INPB=row.readback,
            C=0.95, D=0.01 if noisy or fast else 0.001, CALC="B+(A-B)*C+(RNDM-0.5)*D",
            VAL=current, PREC=4, EGU="A", HOPR=100, LOPR=-100,
            MDEL=-1 if fast else (0 if noisy else 0.005), ADEL=0.005,
        )  # fmt: skip

    def _add_motor(self, row: SimPv) -> None:
        name = row.setpoint.removesuffix(".VAL")
        place = round(self._random.uniform(-5, 5), 2)
        self._add_record(
            "motor", name, DESC=row.description, VAL=place, RBV=place, VELO=10, PREC=3, EGU="mm",
            DRVH=50, DRVL=-50, HOPR=50, LOPR=-50, PINI="YES", FLNK=f"{name}:AT",
        )  # fmt: skip
        self._add_record(
            "calcout", f"{name}:STEP", SCAN=".1 second", INPA=f"{name}.VAL", INPB=f"{name}.RBV",
            INPC=f"{name}.VELO", CALC="ABS(A-B)<=C*0.1?A:(A>B?B+C*0.1:B-C*0.1)",
            OOPT="On Change", OUT=f"{name}.RBV", FLNK=f"{name}:AT",
        )  # fmt: skip
        self._add_record(
            "calcout", f"{name}:AT", INPA=f"{name}.VAL", INPB=f"{name}.RBV", CALC="A=B",
            OOPT="On Change", OUT=f"{name}.DMOV", FLNK=f"{name}:RUN",
        )  # fmt: skip
        self._add_record(
            "calcout", f"{name}:RUN", INPA=f"{name}.DMOV", CALC="!A",
            OOPT="On Change", OUT=f"{name}.MOVN",
        )  # fmt: skip

    def _add_diagnostic(self, row: SimPv) -> None:
        self._add_record(
            "calc", row.readback, SCAN=SCANS[row.index % 3], CALC="(RNDM-0.5)*0.4", PREC=3,
            EGU="mm", MDEL=0 if row.index % 5 == 0 else 0.18, DESC=row.description,
        )  # fmt: skip

    def _add_ramp(self, row: SimPv) -> None:
        calc = "A>=100?0:A+1"
        self._add_record(
            "calc", row.readback, SCAN=".5 second", INPA=row.readback, CALC=calc, EGU="%"
        )

    def _add_sine(self, row: SimPv) -> None:
        phase = f"{row.readback}:PHASE"
        self._add_record(
            "calc", phase, SCAN=".2 second", INPA=phase, CALC="A+0.1", FLNK=row.readback
        )
        self._add_record("calc", row.readback, INPA=phase, CALC="SIN(A)", PREC=4, EGU="V")

    def _add_counter(self, row: SimPv) -> None:
        self._add_record("calc", row.readback, SCAN=".1 second", INPA=row.readback, CALC="A+1")

    # ---- enums

    def _add_enum(self, row: SimPv) -> None:
        labels = LABELS[1:] + LABELS[:1] if self._changed else LABELS
        state = self._random.randrange(16)
        self._add_record("mbbo", row.setpoint, VAL=state, PINI="YES", **_state_fields(labels))

    def _add_enum_readback(self, row: SimPv) -> None:
        self._add_record(
            "mbbi", row.readback, VAL=row.index % 16, PINI="YES", **_state_fields(LABELS)
        )

    def _add_bo(self, row: SimPv) -> None:
        value = self._random.randrange(2)
        self._add_record(
            "bo", row.setpoint, VAL=value, ZNAM="Closed", ONAM="Open, full", PINI="YES"
        )

    # ---- strings and integers

    def _add_string(self, row: SimPv) -> None:
        values = (
            "Écran à ½ µm",
            "plain",
            "",
            'say \\"hi\\", twice',
            "39 characters exactly, padded to it: xx",
        )
        self._add_record("stringout", row.setpoint, VAL=values[row.index % len(values)], PINI="YES")

    def _add_string_bytes(self, row: SimPv) -> None:
        self._add_record("stringout", row.setpoint, VAL="café µ".encode("latin-1"), PINI="YES")

    def _add_longstring(self, row: SimPv) -> None:
        path = "/data/" + "/".join(f"run{row.index}-{n:03d}" for n in range(20))
        self._add_record("lso", row.setpoint, SIZV=512, DOL=f'{{const:\\"{path}\\"}}', PINI="YES")

    def _add_int32(self, row: SimPv) -> None:
        value = self._random.randrange(-(2**31), 2**31)
        kind = "ao" if self._changed else "longout"
        self._add_record(kind, row.setpoint, VAL=value, EGU="ns", PINI="YES")

    def _add_int64(self, row: SimPv) -> None:
        value = (2**63 - 1, -(2**63), 2**53 + 1, 0)[row.index % 4]
        self._add_record("int64out", row.setpoint, VAL=value, EGU="id", PINI="YES")

    # ---- arrays

    def _add_wave(self, row: SimPv) -> None:
        length = (10, 100, 1000)[row.index % 3] * (2 if self._changed else 1)
        values = ",".join(f"{self._random.uniform(-1, 1):.6f}" for _ in range(length))
        fields: Fields = {"FTVL": "DOUBLE", "NELM": length, "PREC": 6, "EGU": "V"}
        self._add_array(row.setpoint, f"[{values}]", **fields)

    def _add_wave_char(self, row: SimPv) -> None:
        codes = ",".join(str(code) for code in f"camera {row.index} ready".encode())
        self._add_array(row.setpoint, f"[{codes}]", FTVL="CHAR", NELM=256)

    def _add_wave_string(self, row: SimPv) -> None:
        link = '["alpha", "", "with, comma", "ümlaut"]'
        self._add_array(row.setpoint, link, FTVL="STRING", NELM=8)

    def _add_wave_empty(self, row: SimPv) -> None:
        self._add_record("waveform", row.setpoint, FTVL="DOUBLE", NELM=64, PINI="YES")

    # ---- odd numbers, odd times, alarms

    def _add_alarm(self, row: SimPv) -> None:
        severity = ("MINOR", "MAJOR", "INVALID")[row.index % 3]
        self._add_record("ao", row.setpoint, VAL=20, HIHI=10, HHSV=severity, PINI="YES", EGU="C")

    def _add_nan(self, row: SimPv) -> None:
        self._add_record("ao", row.setpoint, VAL="nan", PINI="YES", UDFS="NO_ALARM")

    def _add_infinite(self, row: SimPv) -> None:
        self._add_record("ao", row.setpoint, VAL=("inf", "-inf")[row.index % 2], PINI="YES")

    def _add_negative_zero(self, row: SimPv) -> None:
        self._add_record("ao", row.setpoint, VAL="-0.0", PINI="YES")

    def _add_epoch_1990(self, row: SimPv) -> None:
        self._add_record("ao", row.setpoint, VAL=1990, TSE=-2, PINI="YES")

    def _add_never_processed(self, row: SimPv) -> None:
        self._add_record("ao", row.setpoint, VAL=5)

    # ---- those that do something else than asked

    def _add_refuse_asg(self, row: SimPv) -> None:
        self._add_record("ao", row.setpoint, VAL=7.5, ASG="LOCKED", PINI="YES")

    def _add_refuse_disp(self, row: SimPv) -> None:
        self._add_record("ao", row.setpoint, VAL=2.5, DISP=1, PINI="YES")

    def _add_clip(self, row: SimPv) -> None:
        self._add_record("ao", row.setpoint, VAL=1, DRVH=5, DRVL=-5, PINI="YES", EGU="kW")

    def _add_pull_back(self, row: SimPv) -> None:
        back = f"{row.setpoint}:BACK"
        self._add_record("ao", row.setpoint, VAL=1, PINI="YES", FLNK=back, EGU="deg")
        self._add_record("calcout", back, INPA=row.setpoint, CALC="MIN(A,5)", OUT=row.setpoint)

    def _add_read_only(self, row: SimPv) -> None:
        self._add_record("ao", row.setpoint, VAL=11, PINI="YES")


def _state_fields(labels: tuple[str, ...]) -> Fields:
    names = {f"{state}ST": label for state, label in zip(_STATES, labels, strict=True)}
    return {**names, **{f"{state}VL": number for number, state in enumerate(_STATES)}}
