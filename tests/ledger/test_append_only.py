"""The database itself refuses to change or remove what has been written, whoever asks."""

import pytest
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError

from tallystick.ledger.database import Ledger

FORBIDDEN = [
    ("usage_records", "UPDATE usage_records SET cost_usd = 0"),
    ("usage_records", "DELETE FROM usage_records"),
    ("plans", "UPDATE plans SET terms = '{}'"),
    ("plans", "DELETE FROM plans"),
    ("attempts", "DELETE FROM attempts"),
    ("meter_events", "TRUNCATE meter_events"),
    ("meter_events", "DELETE FROM meter_events"),
]


@pytest.mark.parametrize(("table", "statement"), FORBIDDEN)
async def test_history_cannot_be_rewritten(ledger: Ledger, table: str, statement: str) -> None:
    with pytest.raises(DBAPIError, match=rf"{table} is append-only"):
        await _run(ledger, statement)


async def _run(ledger: Ledger, statement: str) -> None:
    async with ledger.begin() as tx:
        await tx.execute(text(statement))
