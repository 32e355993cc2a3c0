"""Reconciliation: runs, what others report, discrepancies, repairs, and what they add to the books.

What settles an attempt, corrects a collection or was seen of a discrepancy is never changed.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
APPEND_ONLY = ("attempt_settlements", "collection_corrections", "discrepancy_events")
TABLES = (
    "repairs",
    "meter_corrections",
    "discrepancy_events",
    "collection_corrections",
    "attempt_settlements",
    "discrepancies",
    "tally_hours",
    "reconciliations",
    "provider_usage",
    "provider_costs",
)


def upgrade() -> None:
    """Make the tables, then the triggers."""
    op.create_table(
        "provider_costs",
        sa.Column("day", sa.Date(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("api_key_id", sa.String(), nullable=False),
        sa.Column("component", sa.String(), nullable=False),
        sa.Column("list_usd", sa.Numeric(), nullable=False),
        sa.Column("amount_usd", sa.Numeric(), nullable=False),
        sa.Column("refreshed_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("day", "model", "api_key_id", "component"),
    )
    op.create_table(
        "provider_usage",
        sa.Column("bucket_start", INSTANT, nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("api_key_id", sa.String(), nullable=False),
        sa.Column("service_tier", sa.String(), nullable=False),
        sa.Column("inference_geo", sa.String(), nullable=False),
        sa.Column("speed", sa.String(), nullable=False),
        sa.Column("requests", sa.BigInteger(), nullable=True),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_5m_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_1h_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("web_searches", sa.BigInteger(), nullable=False),
        sa.Column("refreshed_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint(
            "bucket_start", "model", "api_key_id", "service_tier", "inference_geo", "speed"
        ),
    )
    op.create_table(
        "reconciliations",
        sa.Column("reconciliation_id", sa.BigInteger(), nullable=False),
        sa.Column("run", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("start_at", INSTANT, nullable=False),
        sa.Column("end_at", INSTANT, nullable=False),
        sa.Column("begun_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.Column("claude_state", sa.String(), nullable=True),
        sa.Column("refreshed_at", INSTANT, nullable=True),
        sa.Column("tallied", JSONB, nullable=True),
        sa.Column("calls", JSONB, nullable=True),
        sa.PrimaryKeyConstraint("reconciliation_id"),
        sa.UniqueConstraint("run"),
    )
    op.create_index("ix_reconciliations_interval", "reconciliations", ["start_at", "end_at"])
    op.create_table(
        "tally_hours",
        sa.Column("hour", INSTANT, nullable=False),
        sa.Column("unit", sa.String(), nullable=False),
        sa.Column("claude", sa.BigInteger(), nullable=True),
        sa.Column("ledger", sa.BigInteger(), nullable=True),
        sa.Column("outbox", sa.BigInteger(), nullable=True),
        sa.Column("stripe", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("hour", "unit"),
    )
    op.create_table(
        "discrepancies",
        sa.Column("discrepancy_id", sa.BigInteger(), nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("pair", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("start_at", INSTANT, nullable=False),
        sa.Column("end_at", INSTANT, nullable=False),
        sa.Column("customer_id", sa.String(), nullable=True),
        sa.Column("place", JSONB, nullable=False),
        sa.Column("amounts", JSONB, nullable=False),
        sa.Column("tokens", sa.BigInteger(), nullable=False),
        sa.Column("usd", sa.Numeric(), nullable=True),
        sa.Column("cause", sa.String(), nullable=False),
        sa.Column("words", sa.String(), nullable=False),
        sa.Column("requests", JSONB, nullable=False),
        sa.Column("proposal", JSONB, nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("found_at", INSTANT, nullable=False),
        sa.Column("found_by", sa.BigInteger(), nullable=False),
        sa.Column("changed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(
            ["found_by"],
            ["reconciliations.reconciliation_id"],
        ),
        sa.PrimaryKeyConstraint("discrepancy_id"),
        sa.UniqueConstraint("key"),
    )
    op.create_index("ix_discrepancies_customer", "discrepancies", ["customer_id", "start_at"])
    op.create_index(
        "ix_discrepancies_unsettled",
        "discrepancies",
        ["start_at"],
        postgresql_where=sa.text("state IN ('open', 'repaired')"),
    )
    op.create_table(
        "attempt_settlements",
        sa.Column("attempt_id", sa.BigInteger(), nullable=False),
        sa.Column("discrepancy_id", sa.BigInteger(), nullable=True),
        sa.Column("reconciliation_id", sa.BigInteger(), nullable=False),
        sa.Column("settled_at", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.Column("served", sa.Boolean(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_5m_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_1h_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("web_searches", sa.BigInteger(), nullable=False),
        sa.Column("cost_usd", sa.Numeric(), nullable=False),
        sa.Column("shared", sa.Boolean(), nullable=False),
        sa.Column("words", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["attempt_id"],
            ["attempts.attempt_id"],
        ),
        sa.ForeignKeyConstraint(
            ["discrepancy_id"],
            ["discrepancies.discrepancy_id"],
        ),
        sa.ForeignKeyConstraint(
            ["reconciliation_id"],
            ["reconciliations.reconciliation_id"],
        ),
        sa.PrimaryKeyConstraint("attempt_id"),
    )
    op.create_table(
        "collection_corrections",
        sa.Column("discrepancy_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("amount_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("billed_at", INSTANT, nullable=False),
        sa.Column("created_at", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id"],
            ["customers.customer_id"],
        ),
        sa.ForeignKeyConstraint(
            ["discrepancy_id"],
            ["discrepancies.discrepancy_id"],
        ),
        sa.PrimaryKeyConstraint("discrepancy_id"),
    )
    op.create_index(
        "ix_collection_corrections_billed", "collection_corrections", ["customer_id", "billed_at"]
    )
    op.create_table(
        "discrepancy_events",
        sa.Column("event_id", sa.BigInteger(), nullable=False),
        sa.Column("discrepancy_id", sa.BigInteger(), nullable=False),
        sa.Column("reconciliation_id", sa.BigInteger(), nullable=True),
        sa.Column("at", INSTANT, nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("words", sa.String(), nullable=False),
        sa.Column("amounts", JSONB, nullable=False),
        sa.ForeignKeyConstraint(
            ["discrepancy_id"],
            ["discrepancies.discrepancy_id"],
        ),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index("ix_discrepancy_events_discrepancy", "discrepancy_events", ["discrepancy_id"])
    op.create_table(
        "meter_corrections",
        sa.Column("identifier", sa.String(), nullable=False),
        sa.Column("discrepancy_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("stripe_customer_id", sa.String(), nullable=False),
        sa.Column("meter", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("first_sent_at", INSTANT, nullable=True),
        sa.Column("delivered_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(
            ["discrepancy_id"],
            ["discrepancies.discrepancy_id"],
        ),
        sa.PrimaryKeyConstraint("identifier"),
    )
    op.create_table(
        "repairs",
        sa.Column("repair_id", sa.BigInteger(), nullable=False),
        sa.Column("discrepancy_id", sa.BigInteger(), nullable=False),
        sa.Column("repair", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("begun_at", INSTANT, nullable=False),
        sa.Column("done_at", INSTANT, nullable=True),
        sa.Column("outcome", sa.String(), nullable=True),
        sa.Column("words", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["discrepancy_id"],
            ["discrepancies.discrepancy_id"],
        ),
        sa.PrimaryKeyConstraint("repair_id"),
        sa.UniqueConstraint("discrepancy_id", "repair", "subject"),
    )
    op.create_index(
        "ix_meter_events_occurred", "meter_events", ["occurred_at"], postgresql_using="brin"
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
            f"ON {table} FOR EACH STATEMENT EXECUTE FUNCTION tallystick_append_only()"
        )


def downgrade() -> None:
    """Go back; what was found and settled goes with it."""
    op.drop_index("ix_meter_events_occurred", "meter_events")
    for table in TABLES:
        op.drop_table(table)
