"""A soft IOC without PVA: `python -m drey_testing.ca.softioc DB [ACF]`; iocsh lines on stdin.

Prints `ready` when its channels are served, and ends when stdin does.
"""

from __future__ import annotations

import sys

from epicscorelibs import ioc


def main(database: str, access: str = "") -> None:
    """Serve `database` under the access rules of the file `access` until stdin ends."""
    ioc.iocshRegisterCommon()
    # 512 buckets by default: with 40,000 records the search of names takes most of the time.
    ioc.ioc("dbPvdTableSize 65536")
    if access:
        ioc.ioc(f"asSetFilename {access}")
    ioc.start_ioc(dbs=[(database, "")])
    print("ready", flush=True)
    for line in sys.stdin:
        ioc.ioc(line.strip())
        print("done", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
