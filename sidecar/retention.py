"""Giving up archived conversations when the settings say so; nothing is without."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import anyio

from .errors import AgentError
from .ids import now_ms
from .interfaces import PrunedConversation
from .manager import AgentManager
from .settings import RetentionSettings

logger = logging.getLogger(__name__)

DAY_MS = 24 * 3600 * 1000
FIRST_SWEEP = 120.0
"""Seconds after the start, when the editor has settled."""
SWEEP_INTERVAL = 24 * 3600.0


async def prune(
    manager: AgentManager, rule: RetentionSettings, *, dry_run: bool, by_calendar: bool = False
) -> Sequence[PrunedConversation]:
    """Delete what `rule` gives up and nobody here uses; with `dry_run` only say what. Age is
    time of use, which no clock can make pass at once; `by_calendar` when the user says so."""
    if not (rule.max_age_days or rule.max_bytes):
        return ()
    in_use = {agent.conversation_id for agent in manager.registry}
    before, age = None, rule.max_age_days * DAY_MS
    if age:
        now = now_ms()
        before = now - age if by_calendar else await manager.store.use_ago(age, now)
    pruned = await manager.store.prune(
        before=before,
        max_bytes=rule.max_bytes or None,
        in_use=in_use | set(manager.journal.followed()),
        dry_run=dry_run,
    )
    if pruned and not dry_run:
        logger.info("conversations pruned", extra={"count": len(pruned)})
    return pruned


async def sweep(manager: AgentManager) -> None:
    """Prune once a day, by the settings of that moment."""
    await anyio.sleep(FIRST_SWEEP)
    while True:
        if manager.store.degraded is None:
            try:
                await prune(manager, manager.config.settings.retention, dry_run=False)
            except AgentError as error:
                logger.warning("pruning failed", extra={"cause": error.message})
        await anyio.sleep(SWEEP_INTERVAL)
