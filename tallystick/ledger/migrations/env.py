"""Alembic's entry: runs the migrations on the connection that `migrate.py` hands over.

An advisory lock is held for the whole run, so that several processes that start at once bring the
database up one after the other instead of tripping over each other's half-made tables.
"""

from alembic import context
from sqlalchemy import text
from sqlmodel import SQLModel

import tallystick.ledger.account_tables  # pyright: ignore[reportUnusedImport]
import tallystick.ledger.batch_tables  # pyright: ignore[reportUnusedImport]
import tallystick.ledger.content_tables  # pyright: ignore[reportUnusedImport]
import tallystick.ledger.operator_tables  # pyright: ignore[reportUnusedImport]
import tallystick.ledger.pace  # pyright: ignore[reportUnusedImport]
import tallystick.ledger.payload_tables  # pyright: ignore[reportUnusedImport]
import tallystick.ledger.reconciliation_tables  # noqa: F401  # pyright: ignore[reportUnusedImport]

connection = context.config.attributes["connection"]
context.configure(connection=connection, target_metadata=SQLModel.metadata)
with context.begin_transaction():
    connection.execute(text("SELECT pg_advisory_xact_lock(7461792)"))
    context.run_migrations()
