"""Exit codes of `drey`: the part of its interface that scripts branch on."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What a command's exit status says."""

    OK = 0
    REFUSED = 1
    USAGE = 2
    UNAVAILABLE = 3
    DIFFERENT = 4
    INTERRUPTED = 130


EXIT_CODE_HELP = (
    "Exit codes: 0 done · 1 refused or failed · 2 wrong usage · 3 server not reached or key not"
    " accepted · 4 differences found, or not everything verified · 130 interrupted"
)
