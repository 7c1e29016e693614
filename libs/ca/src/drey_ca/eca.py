"""Channel Access status codes, named and numbered as EPICS names and numbers them (caerr.h)."""

from __future__ import annotations

from enum import IntEnum


class ECA(IntEnum):
    """Those of the ECA_ codes that a bulk operation can give."""

    NORMAL = 1
    TIMEOUT = 80
    ALLOCMEM = 48
    TOLARGE = 72
    BADTYPE = 114
    GETFAIL = 152
    PUTFAIL = 160
    BADCOUNT = 176
    BADSTR = 186
    DISCONN = 192
    NORDACCESS = 368
    NOWTACCESS = 376
    NOCONVERT = 400
    BADCHID = 410
    INTERNAL = 142
    UNAVAILINSERV = 432
    CHANDESTROY = 440
    PUTCBINPROG = 362


ECA_NORMAL = int(ECA.NORMAL)


def name(code: int) -> str:
    """`ECA_PUTFAIL` for 160; `ECA_<n>` for a code without a name here."""
    try:
        return f"ECA_{ECA(code).name}"
    except ValueError:
        return f"ECA_{code}"
