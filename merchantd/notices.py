"""Tells the approval service, in the end, how each resource that it named turned out."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from merchantd.approver import ApproverUnavailable
from zkchannels.service.logging import get_logger
from zkchannels.store.database import DatabaseUnavailable

if TYPE_CHECKING:
    from merchantd.approver import Approver
    from merchantd.store.records import Records

_log = get_logger("merchantd.notices")
_PAUSE = 5.0
_LONGEST_PAUSE = 300.0


async def deliver_notices(records: Records, approver: Approver) -> None:
    """Deliver until cancelled; a notice is forgotten once the service has taken it."""
    pause = _PAUSE
    while True:
        try:
            for notice in await records.notices():
                await approver.finish(notice.resource, success=notice.success)
                await records.drop_notice(notice.id)
            pause = _PAUSE
        except (ApproverUnavailable, DatabaseUnavailable) as error:
            _log.info("approval_service_told_later", reason=str(error))
            pause = min(2 * pause, _LONGEST_PAUSE)
        await asyncio.sleep(pause)
