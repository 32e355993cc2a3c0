"""What the conversations of a period sent again, read from the ledger some at a time.

The figures are those of `tallystick.insight.history_of`. A customer may have had a million turns in
a period, so they are streamed by conversation and added up as they come.
"""

from collections.abc import Sequence
from datetime import datetime
from itertools import chain

from tallystick.insight import History, Turn, follow, history_of
from tallystick.ledger import turns
from tallystick.ledger.database import Transaction

_AT_ONCE = 1_000
"""Turns of whole conversations that are looked at together."""


async def resent_history(
    tx: Transaction, customer_id: str, start: datetime, end: datetime
) -> History:
    """Return what conversations came to in [start, end), late usage of earlier periods left out."""
    found = history_of(())
    waiting: list[list[Turn]] = []
    async for conversation in turns.in_conversations(tx, customer_id, start, end):
        waiting.append(conversation)
        if sum(map(len, waiting)) >= _AT_ONCE:
            found = found.plus(await _history(tx, customer_id, waiting, start))
            waiting = []
    return found.plus(await _history(tx, customer_id, waiting, start))


async def _history(
    tx: Transaction, customer_id: str, conversations: Sequence[Sequence[Turn]], start: datetime
) -> History:
    under_way = {turn.conversation_id or "" for turn, *_ in conversations}
    before = await turns.last_before(tx, customer_id, under_way, start)
    return history_of(follow(chain.from_iterable(conversations), before))
