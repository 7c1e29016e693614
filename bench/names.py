"""Names of the PVs that the benchmarks measure on, and their file for the importer."""

from __future__ import annotations


def pv_name(i: int) -> str:
    """Name of PV `i`; its channels end in `:BDES` and `:BACT`."""
    return f"QUAD:LI{i // 1000:02d}:{i:06d}"


def readbacks(pvs: int) -> list[str]:
    """The readback channels."""
    return [f"{pv_name(i)}:BACT" for i in range(pvs)]


def setpoints(pvs: int) -> list[str]:
    """The setpoint channels."""
    return [f"{pv_name(i)}:BDES" for i in range(pvs)]


def catalog_csv(pvs: int, *, both: bool = True) -> bytes:
    """A file of `pvs` PVs in the layout of the importer; without setpoints unless `both`."""
    lines = [
        "Setpoint,Readback,Device,Description,Region,Area,Abs Tolerance,Readback Abs Tolerance"
    ]
    for i in range(pvs):
        name = pv_name(i)
        lines.append(
            f"{f'{name}:BDES' if both else ''},{name}:BACT,QUAD{i // 4},Quadrupole {i},"
            f"Region {i % 7},Area {i % 40},{0.001 if both else ''},0.05"
        )
    return "\n".join(lines).encode() + b"\n"
