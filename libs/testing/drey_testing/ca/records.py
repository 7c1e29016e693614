"""The records and access rules that the conformance suite expects of its soft IOC."""

from __future__ import annotations

ACCESS = """
ASG(DEFAULT) { RULE(1,READ) RULE(1,WRITE) }
ASG(LOCKED) { RULE(1,READ) }
ASG(SWITCHED) { INPA("SWITCH") RULE(1,READ) RULE(1,WRITE){CALC("A=1")} }
ASG(VEILED) { INPA("VEIL") RULE(1,READ){CALC("A=0")} RULE(1,WRITE){CALC("A=0")} }
"""

LABEL_LENGTH = 25
"""A label has 26 bytes with its NUL, in the record and on the wire."""

LABELS = tuple(
    f"{i:02d} \udcb0 ".ljust(LABEL_LENGTH, chr(ord("a") + i))[:LABEL_LENGTH] for i in range(16)
)
"""Sixteen labels as long as they can be, with a byte that is not UTF-8."""

_STATES = [
    *("ZR", "ON", "TW", "TH", "FR", "FV", "SX", "SV"),
    *("EI", "NI", "TE", "EL", "TV", "TT", "FT", "FF"),
]
_LABEL_FIELDS = "".join(
    f'\n field({state}ST,"{label}") field({state}VL,"{i}")'
    for i, (state, label) in enumerate(zip(_STATES, LABELS, strict=True))
)


def _waveform_record(name: str, kind: str, elements: int = 1) -> str:
    return f'record(waveform,"{name}"){{field(FTVL,"{kind}") field(NELM,"{elements}")}}\n'


BIG = 1_310_720
"""Doubles in 10 MiB."""

LATE = {
    "T:FIRST": (0, 0),
    "T:2038": (0x7FFF_FFFF, 999_999_999),
    "T:2058": (0x8000_0000, 1),
    "T:2126": (0xFFFF_FFFF, 123_456_789),
}
"""Seconds since 1990 and nanoseconds: the whole of what EPICS can say, which is unsigned."""

# What the portable part of the suite uses; the other server has the same names.
_PORTABLE = (
    "".join(
        _waveform_record(f"V:{kind}", kind) + _waveform_record(f"V:{kind}S", kind, 1000)
        for kind in ("DOUBLE", "FLOAT", "LONG", "SHORT", "CHAR")
    )
    + _waveform_record("V:STRINGS", "STRING", 10)
    + _waveform_record("V:EMPTY", "DOUBLE", 10)
    + _waveform_record("V:BIG", "DOUBLE", BIG)
    + 'record(stringout,"V:STRING"){field(VAL,"first")}\n'
    + f'record(mbbo,"V:ENUM"){{{_LABEL_FIELDS}}}\n'
    + 'record(calc,"V:COUNTER"){field(CALC,"VAL+1") field(SCAN,".1 second")}\n'
)

# What comes back with other types and counts after the IOC was killed.
_CHANGING = """
record(ao,"R:DOUBLE_ENUM"){field(VAL,"4.5") field(PINI,"YES") field(EGU,"mA") field(HOPR,"5")}
record(stringout,"R:STRING_DOUBLE"){field(VAL,"text") field(PINI,"YES")}
record(longout,"R:SCALAR_ARRAY"){field(VAL,"7") field(PINI,"YES")}
record(aao,"R:ARRAY_SCALAR"){field(FTVL,"LONG") field(NELM,"5")}
record(aao,"R:LONGER"){field(FTVL,"DOUBLE") field(NELM,"1000")}
record(ao,"R:SAME"){field(VAL,"1.25") field(PINI,"YES") field(EGU,"same")}
"""

_CHANGED = """
record(mbbo,"R:DOUBLE_ENUM"){field(ZRST,"zero") field(ONST,"one") field(ONVL,"1") field(VAL,"1")
 field(PINI,"YES")}
record(ao,"R:STRING_DOUBLE"){field(VAL,"0.125") field(PINI,"YES") field(EGU,"V")}
record(aao,"R:SCALAR_ARRAY"){field(FTVL,"LONG") field(NELM,"5")}
record(longout,"R:ARRAY_SCALAR"){field(VAL,"8") field(PINI,"YES")}
record(aao,"R:LONGER"){field(FTVL,"DOUBLE") field(NELM,"2000")}
record(ao,"R:SAME"){field(VAL,"2.5") field(PINI,"YES") field(EGU,"same")}
"""

_FIXED = """
record(ao,"DOUBLE"){field(EGU,"mA") field(PREC,"3") field(VAL,"1.5") field(PINI,"YES")
 field(HOPR,"10") field(LOPR,"-10") field(DRVH,"9") field(DRVL,"-9") field(HIHI,"8") field(HIGH,"7")
 field(LOW,"-7") field(LOLO,"-8") field(HHSV,"MAJOR") field(HSV,"MINOR")
 field(LSV,"MINOR") field(LLSV,"MAJOR")}
record(longout,"LONG"){field(VAL,"-2147483648")}
record(waveform,"FLOATS"){field(FTVL,"FLOAT") field(NELM,"8")}
record(waveform,"FLOAT"){field(FTVL,"FLOAT") field(NELM,"1")}
record(waveform,"SHORT"){field(FTVL,"SHORT") field(NELM,"1")}
record(waveform,"CHAR"){field(FTVL,"UCHAR") field(NELM,"1")}
record(waveform,"ULONG"){field(FTVL,"ULONG") field(NELM,"1")}
record(waveform,"USHORT"){field(FTVL,"USHORT") field(NELM,"1")}
record(waveform,"INT64"){field(FTVL,"INT64") field(NELM,"1")}
record(waveform,"DOUBLES"){field(FTVL,"DOUBLE") field(NELM,"1000")}
record(waveform,"CHARS"){field(FTVL,"CHAR") field(NELM,"100")}
record(waveform,"STRINGS"){field(FTVL,"STRING") field(NELM,"4")}
record(mbbo,"ENUM"){field(ZRST,"off") field(ONST,"on") field(TWST,"\udce9t\udce9") field(ZRVL,"0")
 field(ONVL,"1") field(TWVL,"2")}
record(stringout,"STRING"){field(VAL,"caf\udce9")}
record(lso,"TEXT"){field(SIZV,"300")}
record(ao,"NEVER"){}
record(ao,"SINK"){}
record(ao,"LOCKED"){field(ASG,"LOCKED")}
record(ao,"SWITCHED"){field(ASG,"SWITCHED")}
record(ao,"SWITCH"){field(VAL,"1") field(PINI,"YES")}
record(ao,"VEILED"){field(ASG,"VEILED") field(VAL,"6.5") field(PINI,"YES") field(EGU,"kV")}
record(ao,"VEIL"){field(VAL,"0") field(PINI,"YES")}
record(ao,"DISABLED"){field(DISP,"1")}
record(ao,"SLOW"){field(FLNK,"SLOWSEQ") }
record(seq,"SLOWSEQ"){field(DLY1,"1") field(LNK1,"SINK") field(DO1,"1")}
record(calc,"FAST"){field(CALC,"VAL+1") field(SCAN,".1 second")}
"""

DATABASE = _FIXED + _PORTABLE + _CHANGING

RETYPED = _FIXED + _PORTABLE + _CHANGED
"""The same IOC, come back with records of other types and lengths."""
