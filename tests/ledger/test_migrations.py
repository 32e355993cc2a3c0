"""The migrations make exactly the tables that the code describes."""

from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool
from sqlmodel import SQLModel

from tallystick.ledger import tables
from tallystick.ledger.database import driver_url
from tallystick.ledger.migrate import is_current

APPEND_ONLY = {
    "usage_records": "reason",
    "plans": "plan",
    "customer_terms": "customer_id",
    "content_terms": "customer_id",
    "adjustments": "reason",
    "plan_moves": "plan",
    "grants": "source",
    "wallet_entries": "kind",
    "statements": "plan",
    "statement_lines": "kind",
    "statement_items": "stripe_invoice_id",
    "alerts": "subject",
    "meter_rejections": "code",
    "batch_tries": "round",
    "attempt_settlements": "words",
    "collection_corrections": "reason",
    "discrepancy_events": "words",
    "operator_actions": "outcome",
}
"""Tables that are never changed, each with a column to try."""


def test_a_migrated_database_is_what_the_models_describe(database_url: str) -> None:
    assert tables.UsageRecord.__tablename__ in SQLModel.metadata.tables
    engine = create_engine(driver_url(database_url), poolclass=NullPool)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, SQLModel.metadata) == []
    assert is_current(database_url)


def test_indexes_cover_what_the_models_say(database_url: str) -> None:
    """Included columns, which the comparison above does not look at."""
    wanted = {
        (str(index.name), *index.dialect_options["postgresql"]["include"])
        for table in SQLModel.metadata.tables.values()
        for index in table.indexes
        if index.dialect_options["postgresql"]["include"]
    }
    statement = (
        "SELECT c.relname, a.attname FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid "
        "JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'public' "
        "JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > i.indnkeyatts"
    )
    assert wanted == {tuple(row) for row in _rows(database_url, statement)}


@pytest.mark.parametrize("table", APPEND_ONLY)
def test_append_only_tables_refuse_whoever_connects(database_url: str, table: str) -> None:
    column = APPEND_ONLY[table]
    for change in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
        with pytest.raises(DBAPIError, match="book a correction"):
            _rows(database_url, change)


def _rows(database_url: str, statement: str) -> list[Any]:
    engine = create_engine(driver_url(database_url), poolclass=NullPool)
    with engine.connect() as connection:
        return list(connection.execute(text(statement)))
