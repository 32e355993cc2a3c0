"""Short ways to switch keeping on and off, and to look at what is kept, stored and read."""

import json
from typing import Any

from sqlalchemy import text

from tallystick.contracts import RequestKey
from tallystick.ledger import contents
from tallystick.ledger.database import Ledger
from tallystick.payloads.columns import ColumnSeal
from tallystick.payloads.keys import Keyring


async def keep(ledger: Ledger, customer: str, days: int | None, *, erase: bool = False) -> int:
    async with ledger.begin() as tx:
        return await contents.decide(tx, customer, days, erase=erase)


async def kept(ledger: Ledger, key: RequestKey, *keys: str) -> tuple[Any, Any] | None:
    """Return the body that is kept of a request, and its reply."""
    async with ledger.begin() as tx:
        found = await contents.find(tx, key)
    if found is None:
        return None
    seal = ColumnSeal(Keyring.parse(keys))
    return tuple(json.loads(seal.read_text(each)) for each in (found.params, found.reply))  # type: ignore[return-value]


async def stored(ledger: Ledger) -> list[str]:
    """Return the rows of content as text, whatever their date."""
    async with ledger.begin() as tx:
        rows = await tx.execute(text("SELECT c::text FROM request_contents c ORDER BY request_id"))
        return [row[0] for row in rows]
