"""What is used of nats-py, which is imported here only.

It imports aiohttp wherever that is installed, for WebSockets, which nobody here uses: a fifth of
the start of a service, and 9 MB. It does without where it cannot be imported.
"""

import sys

_aiohttp = sys.modules.get("aiohttp")
sys.modules["aiohttp"] = None  # type: ignore[assignment]

from nats.aio.client import Client  # noqa: E402
from nats.aio.msg import Msg  # noqa: E402
from nats.aio.subscription import Subscription  # noqa: E402
from nats.errors import BadSubjectError, MaxPayloadError, NoRespondersError  # noqa: E402
from nats.errors import Error as NatsError  # noqa: E402

if _aiohttp is None:
    del sys.modules["aiohttp"]
else:
    sys.modules["aiohttp"] = _aiohttp

__all__ = [
    "BadSubjectError",
    "Client",
    "MaxPayloadError",
    "Msg",
    "NatsError",
    "NoRespondersError",
    "Subscription",
]
