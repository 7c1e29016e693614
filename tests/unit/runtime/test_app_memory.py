from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest

from drey_runtime.app_memory import GiveBack, give_back

# Small blocks freed in a thread between others that stay, as an import leaves them.
_PROGRAM = """
import asyncio, sys, threading
from drey_runtime.app_memory import give_back, keep_little
keep_little()
kept = []
def work():
    blocks = [bytes(2000) for _ in range(50_000)]
    kept.extend(blocks[::500])
thread = threading.Thread(target=work)
thread.start()
thread.join()
asyncio.run(give_back())
pages = int(open("/proc/self/statm").read().split()[1])
sys.exit(0 if pages * 4096 < 90e6 else 1)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_what_is_free_goes_back() -> None:
    done = subprocess.run([sys.executable, "-c", _PROGRAM], check=False, timeout=60)
    assert done.returncode == 0


async def test_the_loop_goes_on_until_cancelled() -> None:
    await give_back()
    loop = asyncio.create_task(GiveBack(0.001).run())
    done, _ = await asyncio.wait({loop}, timeout=0.05)
    assert not done
    loop.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loop
