"""Leases of Kubernetes (`coordination.k8s.io/v1`): one object a name, made by the deployment.

The rules are in `drey_core.election`; here is the talk with the API server. Writes name the
version that they follow, so that of two that are under way at a time one is refused, and one that
was delayed cannot undo what came after it. Objects are never created here: rights on `create`
cannot be given by name.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import aiohttp

from drey_core.election import (
    Candidate,
    LeaseRecord,
    epoch_after,
    publishes_until,
    still_held,
)
from drey_core.errors import Unavailable, error_text
from drey_runtime.clock import boottime_s, now_ns
from drey_runtime.kubernetes_access import KubernetesAccess, file_access, pod_access
from drey_runtime.lease import Floor, Term, keep_term, no_floor
from drey_runtime.retrying import backoff_delay, reraise_cancellation

_log = logging.getLogger(__name__)
_EPOCH = "drey.dev/epoch"
_GIVEN_BACK = "drey.dev/given-back"
"""Names the object (by uid) and the epoch that were given back, so that a copy says nothing."""
_OK, _FORBIDDEN, _NOT_FOUND, _CONFLICT = 200, 403, 404, 409
_ERROR_TEXT = 300
_FOLLOWED_WRITES = 8
_LONGEST_LOOK_S = 0.5
"""Between two looks of one who waits: what is given back is not to lie there for long."""
_CONNECTIONS = 32


class LeaseObjects(Protocol):
    """Where the lease objects are. All raise `Unavailable`, within a bounded time."""

    async def read_record(self, name: str) -> LeaseRecord | None:
        """The newest state; None where there is no such object."""
        ...

    async def write_record(
        self, name: str, after: LeaseRecord, holder: str, epoch: int, *, take: bool
    ) -> LeaseRecord | None:
        """Set holder and epoch, and renew. None where `after` is not the newest state.

        An empty `holder` gives the lease back. `take`: this is a new ownership.
        """
        ...


class KubernetesLease:
    """As `drey_runtime.lease.Lease`, over lease objects.

    `holder` names this process and no other, at any time. The holder renews each quarter of
    `duration_s`; where it could not for three quarters, `term.valid` is false: nothing is
    published until it could. A holder that died is followed after `duration_s` and one look.
    """

    def __init__(
        self,
        objects: LeaseObjects,
        *,
        holder: str,
        duration_s: float,
        prefix: str = "",
        clock: Callable[[], float] = boottime_s,
    ) -> None:
        self._objects = objects
        self._holder = holder
        self._duration_s = duration_s
        self._prefix = prefix
        self._clock = clock

    @asynccontextmanager
    async def held(self, name: str, *, floor: Floor = no_floor) -> AsyncIterator[Term]:
        """As `Lease.held`. While the API server is away it waits for it."""
        tenure = _Tenure(self._objects, f"{self._prefix}{name}", self._holder)
        try:
            until = await self._acquire_lease(tenure, floor)
            term = Term(name, tenure.known_record.epoch, until, self._clock)
            _log.info("lease acquired", extra={"lease": tenure.name, "epoch": term.epoch})
            async with keep_term(term, lambda: self._renew_while_ours(tenure, term)):
                yield term
        finally:
            await tenure.give_back(self._duration_s / 4)

    async def _acquire_lease(self, tenure: _Tenure, floor: Floor) -> float:
        """Wait for the lease and take it; until when it may be published."""
        candidate = Candidate(self._duration_s)
        trouble, duration_s = "", self._duration_s
        while True:
            try:
                record = await self._objects.read_record(tenure.name)
                if record is not None:
                    # its holder may have had a shorter one: looks have to be closer than that
                    duration_s = min(candidate.duration_of(record), self._duration_s)
                if record is not None and candidate.may_take(record, self._clock()):
                    epoch = epoch_after(record.epoch, [await floor()])
                    sent_s = self._clock()
                    if await tenure.write_record(record, epoch, take=True):
                        return publishes_until(sent_s, self._duration_s)
                obstacle = "" if record is not None else "there is no such Lease: make it, as the"
                obstacle += " chart and k8s/manifests do" if obstacle else ""
            except Unavailable as error:
                obstacle = error.message
            if obstacle and obstacle != trouble:
                _log.warning("lease waits", extra={"lease": tenure.name, "error": obstacle})
            trouble = obstacle
            pause = min(duration_s / 8, _LONGEST_LOOK_S)
            await asyncio.sleep(backoff_delay(0, first_s=pause, cap_s=pause))

    async def _renew_while_ours(self, tenure: _Tenure, term: Term) -> None:
        """Renew each quarter of the duration; returns when the lease is not ours any more."""
        pause, failures = self._duration_s / 4, 0
        while True:
            await asyncio.sleep(pause)
            try:
                sent_s = await tenure.renew_principal(self._clock)
            except Unavailable as error:
                pause = self._duration_s / 16
                if failures == 0:
                    _log.warning(
                        "lease not renewed", extra={"lease": tenure.name, "error": error.message}
                    )
                failures += 1
                continue
            if sent_s is None:
                return
            was_valid = term.still_valid  # it may have run out while the answer was on its way
            term.until = publishes_until(sent_s, self._duration_s)
            pause, failures = self._duration_s / 4, 0
            if not was_valid and term.still_valid:
                # nobody else had it meanwhile: the epoch stays
                _log.warning("lease renewed too late", extra={"lease": tenure.name})
                term.changed.set()


class _Tenure:
    """One lease of one process, or the wish for it."""

    def __init__(self, objects: LeaseObjects, name: str, holder: str) -> None:
        self.name = name
        self._objects = objects
        self._holder = holder
        self._record: LeaseRecord | None = None
        self._may_hold = False

    @property
    def known_record(self) -> LeaseRecord:
        """As we wrote it last."""
        assert self._record is not None
        return self._record

    async def write_record(self, record: LeaseRecord, epoch: int, *, take: bool = False) -> bool:
        """Write after `record`; False where somebody was faster."""
        self._may_hold = True
        written = await self._objects.write_record(
            self.name, record, self._holder, epoch, take=take
        )
        if written is not None:
            self._record = written
        return written is not None

    async def renew_principal(self, clock: Callable[[], float]) -> float | None:
        """When the write that succeeded was sent; None where the lease is not ours any more."""
        record = self.known_record
        for _ in range(_FOLLOWED_WRITES):
            sent_s = clock()
            if await self.write_record(record, record.epoch):
                return sent_s
            # an answer that was lost, or a hand on the object's labels: that takes nothing away
            stored_record = await self._objects.read_record(self.name)
            if stored_record is None or not still_held(self.known_record, stored_record):
                return None
            record = stored_record
        raise Unavailable(f"Lease {self.name} is written by others all the time")

    async def give_back(self, timeout_s: float) -> None:
        """Let others have it at once, where we may hold it. Never fails; takes `timeout_s`.

        In a task of its own: an owner that is cancelled, as all are when the process is to end,
        could wait for no answer any more, and others would wait for the whole duration.
        """
        if not self._may_hold:
            return
        giving = asyncio.create_task(self._give_back(timeout_s), name=f"give back {self.name}")
        try:
            await asyncio.wait({giving})
        except asyncio.CancelledError:
            await asyncio.wait({giving})
            raise

    async def _give_back(self, timeout_s: float) -> None:
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(timeout_s):
                # the write that took it may have had no answer
                stored_record = await self._objects.read_record(self.name)
                if stored_record is not None and stored_record.holder == self._holder:
                    await self._objects.write_record(
                        self.name, stored_record, "", stored_record.epoch, take=False
                    )


class KubernetesObjects:
    """`LeaseObjects` of one namespace at an API server."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        access: KubernetesAccess,
        namespace: str,
        duration_s: int,
        timeout_s: float,
    ) -> None:
        self._session = session
        self._access = access
        self._namespace = namespace
        self._duration_s = duration_s
        self._timeout = aiohttp.ClientTimeout(total=timeout_s)

    async def read_record(self, name: str) -> LeaseRecord | None:
        """As the port says."""
        return await self._request_record("get", name, none_at={_NOT_FOUND})

    async def write_record(
        self, name: str, after: LeaseRecord, holder: str, epoch: int, *, take: bool
    ) -> LeaseRecord | None:
        """As the port says."""
        now = datetime.fromtimestamp(now_ns() / 1e9, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        given_back = None if holder else _given_back(after.uid, epoch)
        patch: dict[str, dict[str, object]] = {
            "metadata": {
                "uid": after.uid,
                "resourceVersion": after.version,
                "annotations": {_EPOCH: str(epoch), _GIVEN_BACK: given_back},
            },
            "spec": {
                "holderIdentity": holder or None,
                "renewTime": now,
                "leaseDurationSeconds": self._duration_s,
                **({"acquireTime": now} if take else {}),
            },
        }
        return await self._request_record("patch", name, patch, none_at={_CONFLICT, _NOT_FOUND})

    async def _request_record(
        self, verb: str, name: str, body: object = None, *, none_at: set[int]
    ) -> LeaseRecord | None:
        """The lease as the answer has it; None at an answer of `none_at`."""
        lease = f"{self._namespace}/{name}"
        try:
            token = self._access.token()
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            if body is not None:
                headers["Content-Type"] = "application/merge-patch+json"
            async with self._session.request(
                verb,
                f"{self._access.url}/apis/coordination.k8s.io/v1/namespaces/{self._namespace}"
                f"/leases/{name}",
                data=None if body is None else json.dumps(body),
                headers=headers,
                ssl=self._access.tls or True,
                timeout=self._timeout,
                allow_redirects=False,
            ) as answer:
                status, text = answer.status, await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError, ssl.SSLError) as error:
            reraise_cancellation()
            raise Unavailable(f"the API server is away: {error_text(error)}") from error
        reraise_cancellation()
        if status == _OK:
            return _record_of_lease(json.loads(text))
        if status in none_at:
            return None
        if status == _FORBIDDEN:
            raise Unavailable(
                f"this pod's account may not {verb} Lease {lease}: give its Role that verb on"
                " leases.coordination.k8s.io of that name"
            )
        answer_text = text[:_ERROR_TEXT]
        raise Unavailable(f"the API server answers {status} to {verb} Lease {lease}: {answer_text}")


def _record_of_lease(lease: Mapping[str, Any]) -> LeaseRecord:
    meta, spec = lease["metadata"], lease.get("spec") or {}
    annotations = meta.get("annotations") or {}
    holder = spec.get("holderIdentity") or ""
    epoch = annotations.get(_EPOCH, "")
    number = int(epoch) if epoch.isascii() and epoch.isdigit() else 0
    return LeaseRecord(
        uid=meta["uid"],
        version=meta["resourceVersion"],
        holder=holder,
        epoch=number,
        duration_s=spec.get("leaseDurationSeconds") or 0,
        renewed=spec.get("renewTime") or "",
        given_back=not holder and annotations.get(_GIVEN_BACK) == _given_back(meta["uid"], number),
    )


def _given_back(uid: str, epoch: int) -> str:
    return f"{uid}/{epoch}"


@asynccontextmanager
async def open_kubernetes(
    *,
    namespace: str,
    identity: str,
    prefix: str,
    duration_s: int,
    kubeconfig: Path | None = None,
) -> AsyncIterator[KubernetesLease]:
    """Leases `{prefix}{name}` of `namespace`, by the pod's account or a kubeconfig.

    `identity` is the pod's name; each process of it is a holder of its own. `NoKubernetesAccess`
    where there is neither a pod's account nor such a file.
    """
    access = pod_access() if kubeconfig is None else file_access(kubeconfig)
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    async with aiohttp.ClientSession(connector=connector) as session:
        objects = KubernetesObjects(session, access, namespace, duration_s, duration_s / 4)
        holder = f"{identity}_{uuid.uuid4().hex[:12]}"
        yield KubernetesLease(objects, holder=holder, duration_s=duration_s, prefix=prefix)
