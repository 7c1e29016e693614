"""Whether the PVs of a plan are among those that its maker, or who runs it, was granted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from drey.common.v1 import selector_pb2
from drey_core.principal import Principal
from drey_core.values import I8
from drey_restore.adapters.catalog import CatalogClient
from drey_restore.adapters.store import RestoreStore
from drey_restore.domain.items import PlanItems
from drey_restore.domain.kinds import Skip


class GrantCheck:
    """Holds plans against grants that are for some PVs only, by the catalog as it is now."""

    def __init__(self, catalog: CatalogClient, store: RestoreStore) -> None:
        self._catalog, self._store = catalog, store

    async def require_plan(
        self, principal: Principal, permission: str, plan_id: str, doing: str
    ) -> None:
        """As `require`, of a plan that is stored. NotFound."""
        if principal.selectors_for(permission) is not None:
            items = await self._store.plan_items(plan_id)
            await self.require_grant(principal, permission, items, doing)

    async def require_grant(
        self, principal: Principal, permission: str, items: PlanItems, doing: str
    ) -> None:
        """Raise `PermissionDenied` where a PV of the plan is not covered; `Unavailable`.

        All of them count, also those that are left out; but for PVs that are not in the catalog.
        """
        selectors = principal.selectors_for(permission)
        if selectors is None:
            return
        there = np.flatnonzero(items.skip != Skip.DELETED)
        covered = await self._covered_mask(selectors, items.number[there])
        if not covered.all():
            outside = [items.names[row] for row in there[~covered].tolist()]
            raise principal.refuse_pvs(doing, outside)

    async def _covered_mask(self, selectors: Sequence[bytes], numbers: I8) -> NDArray[np.bool_]:
        covered = np.zeros(len(numbers), bool)
        for encoded in selectors:
            chosen = await self._catalog.resolve_selector(selector_pb2.Selector.FromString(encoded))
            covered |= np.isin(numbers, chosen)
        return covered
