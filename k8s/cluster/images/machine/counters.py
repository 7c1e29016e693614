"""An IOC of counters: each adds one, ten times a second, so that a value tells which update it is.

python counters.py COUNT

SIGUSR1 has it print its clients, each with its number of channels.
"""

import ctypes
import os
import signal
import sys

os.environ["EPICS_CAS_AUTO_BEACON_ADDR_LIST"] = "NO"
os.environ["EPICS_CAS_BEACON_ADDR_LIST"] = "127.0.0.1"

from epicscorelibs.ioc import dbCore
from softioc import asyncio_dispatcher, builder, softioc


def main() -> None:
    """Serve until SIGTERM."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR1})
    for number in range(int(sys.argv[1])):
        name = f"COUNT:{number:04}"
        builder.records.calc(name, SCAN=".1 second", INPA=name, CALC="A+1")
    builder.LoadDatabase()
    softioc.iocInit(asyncio_dispatcher.AsyncioDispatcher())
    while signal.sigwait({signal.SIGTERM, signal.SIGUSR1}) == signal.SIGUSR1:
        dbCore.casr(1)
        ctypes.CDLL(None).fflush(None)
    os._exit(0)


if __name__ == "__main__":
    main()
