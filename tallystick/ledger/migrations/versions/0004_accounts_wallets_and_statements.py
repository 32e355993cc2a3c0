"""Accounts: periods, plans over time, wallets, statements, invoices, notices, Stripe's events.

What was recorded before is billed when it was served or, for an adjustment, when it was booked:
no period has been closed yet.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
APPEND_ONLY = (
    "plan_moves",
    "grants",
    "wallet_entries",
    "statements",
    "statement_lines",
    "statement_items",
    "alerts",
    "meter_rejections",
)
TABLES = (
    "meter_rejections",
    "event_listings",
    "stripe_events",
    "alerts",
    "usage_watches",
    "billing_accounts",
    "wallet_entries",
    "wallets",
    "grants",
    "invoices",
    "notices",
    "plan_moves",
    "top_ups",
    "statement_items",
    "statement_lines",
    "statements",
)


def upgrade() -> None:
    """Make the tables and their triggers, and date the usage there is."""
    op.create_table(
        "meter_rejections",
        sa.Column("identifier", sa.String(), nullable=False),
        sa.Column("code", sa.String(), nullable=False),
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("rejected_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("identifier", "code"),
    )
    op.create_table(
        "stripe_events",
        sa.Column("event_id", sa.String(), nullable=False),
        sa.Column("type", sa.String(), nullable=False),
        sa.Column("form", sa.String(), nullable=False),
        sa.Column("api_version", sa.String(), nullable=True),
        sa.Column("object_id", sa.String(), nullable=True),
        sa.Column("stripe_customer_id", sa.String(), nullable=True),
        sa.Column("customer_id", sa.String(), nullable=True),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("received_at", INSTANT, nullable=False),
        sa.Column("forwarded_at", INSTANT, nullable=True),
        sa.Column("applied_at", INSTANT, nullable=True),
        sa.Column("parked_at", INSTANT, nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("event_id"),
    )
    op.create_index("ix_stripe_events_object", "stripe_events", ["object_id"])
    op.create_index(
        "ix_stripe_events_open",
        "stripe_events",
        ["received_at"],
        postgresql_where=sa.text("applied_at IS NULL"),
    )
    op.create_table(
        "event_listings",
        sa.Column("form", sa.String(), nullable=False),
        sa.Column("read_until", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("form"),
    )
    op.create_table(
        "alerts",
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("period_start", INSTANT, nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("percent", sa.Integer(), nullable=False),
        sa.Column("passed_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("customer_id", "period_start", "subject", "percent"),
    )
    op.create_table(
        "usage_watches",
        sa.Column("watch", sa.String(), nullable=False),
        sa.Column("usage_record_id", sa.BigInteger(), nullable=False),
        sa.Column("adjustment_id", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("watch"),
    )
    op.create_table(
        "billing_accounts",
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("anchor", INSTANT, nullable=False),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.Column("closed_until", INSTANT, nullable=False),
        sa.Column("invoiced_until", INSTANT, nullable=False),
        sa.Column("stripe_subscription_id", sa.String(), nullable=True),
        sa.Column("aligned_plan", sa.String(), nullable=True),
        sa.Column("opened_at", INSTANT, nullable=False),
        sa.Column("cancel_at", INSTANT, nullable=True),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("customer_id"),
        sa.UniqueConstraint("stripe_subscription_id"),
    )
    op.create_table(
        "grants",
        sa.Column("grant_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("amount_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("source", sa.String(), nullable=False),
        sa.Column("note", sa.String(), nullable=True),
        sa.Column("granted_at", INSTANT, nullable=False),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("grant_id"),
        sa.UniqueConstraint("customer_id", "source"),
    )
    op.create_table(
        "invoices",
        sa.Column("stripe_invoice_id", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("purpose", sa.String(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=True),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("currency", sa.String(), nullable=False),
        sa.Column("total_cents", sa.BigInteger(), nullable=False),
        sa.Column("tax_cents", sa.BigInteger(), nullable=False),
        sa.Column("amount_due_cents", sa.BigInteger(), nullable=False),
        sa.Column("amount_paid_cents", sa.BigInteger(), nullable=False),
        sa.Column("created_at", INSTANT, nullable=False),
        sa.Column("finalized_at", INSTANT, nullable=True),
        sa.Column("due_at", INSTANT, nullable=True),
        sa.Column("paid_at", INSTANT, nullable=True),
        sa.Column("failed_at", INSTANT, nullable=True),
        sa.Column("failure", sa.String(), nullable=True),
        sa.Column("attempt_count", sa.Integer(), nullable=False),
        sa.Column("next_payment_attempt", INSTANT, nullable=True),
        sa.Column("hosted_url", sa.String(), nullable=True),
        sa.Column("checked_at", INSTANT, nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("stripe_invoice_id"),
    )
    op.create_index("ix_invoices_customer", "invoices", ["customer_id", "created_at"])
    op.create_table(
        "notices",
        sa.Column("notice_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=True),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("audience", sa.String(), nullable=False),
        sa.Column("message", sa.String(), nullable=False),
        sa.Column("facts", JSONB, nullable=False),
        sa.Column("raised_at", INSTANT, nullable=False),
        sa.Column("delivered_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("notice_id"),
        sa.UniqueConstraint("customer_id", "key", postgresql_nulls_not_distinct=True),
    )
    op.create_index(
        "ix_notices_waiting",
        "notices",
        ["notice_id"],
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    op.create_table(
        "plan_moves",
        sa.Column("plan_move_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("valid_from", INSTANT, nullable=False),
        sa.Column("plan", sa.String(), nullable=False),
        sa.Column("decided_at", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("plan_move_id"),
    )
    op.create_index("ix_plan_moves_customer", "plan_moves", ["customer_id", "valid_from"])
    op.create_table(
        "statements",
        sa.Column("statement_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("ordinal", sa.Integer(), nullable=False),
        sa.Column("period_start", INSTANT, nullable=False),
        sa.Column("period_end", INSTANT, nullable=False),
        sa.Column("created_at", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.Column("plan", sa.String(), nullable=False),
        sa.Column("usage_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("due_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("due_cents", sa.BigInteger(), nullable=False),
        sa.Column("document", JSONB, nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("statement_id"),
        sa.UniqueConstraint("customer_id", "ordinal"),
    )
    op.create_table(
        "top_ups",
        sa.Column("top_up_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("amount_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("automatic", sa.Boolean(), nullable=False),
        sa.Column("requested_at", INSTANT, nullable=False),
        sa.Column("stripe_invoice_id", sa.String(), nullable=True),
        sa.Column("granted_at", INSTANT, nullable=True),
        sa.Column("failed_at", INSTANT, nullable=True),
        sa.Column("failure", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("top_up_id"),
    )
    op.create_index(
        "ux_top_ups_open",
        "top_ups",
        ["customer_id"],
        unique=True,
        postgresql_where=sa.text("granted_at IS NULL AND failed_at IS NULL"),
    )
    op.create_table(
        "statement_items",
        sa.Column("statement_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("stripe_invoice_item_id", sa.String(), nullable=False),
        sa.Column("stripe_invoice_id", sa.String(), nullable=False),
        sa.ForeignKeyConstraint(["statement_id"], ["statements.statement_id"]),
        sa.PrimaryKeyConstraint("statement_id", "number"),
        sa.UniqueConstraint("stripe_invoice_item_id"),
    )
    op.create_table(
        "statement_lines",
        sa.Column("statement_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(), nullable=False),
        sa.Column("collected_by", sa.String(), nullable=False),
        sa.Column("description", sa.String(), nullable=False),
        sa.Column("amount_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("amount_cents", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["statement_id"], ["statements.statement_id"]),
        sa.PrimaryKeyConstraint("statement_id", "number"),
    )
    op.create_table(
        "wallets",
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("open_grants", sa.ARRAY(sa.BigInteger()), nullable=False),
        sa.Column("last_grant_id", sa.BigInteger(), nullable=False),
        sa.Column("period_start", INSTANT, nullable=True),
        sa.Column("burnt_nano_usd", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("customer_id"),
    )
    op.create_table(
        "wallet_entries",
        sa.Column("wallet_entry_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("grant_id", sa.BigInteger(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("amount_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("remaining_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("usage_record_id", sa.BigInteger(), nullable=True),
        sa.Column("adjustment_id", sa.BigInteger(), nullable=True),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("created_at", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.ForeignKeyConstraint(["adjustment_id"], ["adjustments.adjustment_id"]),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.ForeignKeyConstraint(["grant_id"], ["grants.grant_id"]),
        sa.ForeignKeyConstraint(["usage_record_id"], ["usage_records.usage_record_id"]),
        sa.PrimaryKeyConstraint("wallet_entry_id"),
    )
    op.create_index(
        "ix_wallet_entries_grant", "wallet_entries", ["customer_id", "grant_id", "wallet_entry_id"]
    )
    op.create_index("ix_wallet_entries_occurred", "wallet_entries", ["customer_id", "occurred_at"])
    op.create_index(
        "ux_wallet_entries_adjustment",
        "wallet_entries",
        ["adjustment_id", "grant_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("kind = 'adjustment'"),
    )
    op.create_index(
        "ux_wallet_entries_usage",
        "wallet_entries",
        ["usage_record_id", "grant_id"],
        unique=True,
        postgresql_nulls_not_distinct=True,
        postgresql_where=sa.text("kind = 'usage'"),
    )
    op.add_column("customers", sa.Column("suspended_by", sa.String(), nullable=True))
    op.add_column("meter_events", sa.Column("withdrawn_at", INSTANT, nullable=True))
    op.create_index(
        "ix_meter_events_withdrawn",
        "meter_events",
        ["customer_id", "occurred_at"],
        postgresql_where=sa.text("withdrawn_at IS NOT NULL"),
    )
    op.create_index(
        "ix_attempts_lost",
        "attempts",
        ["customer_id", "started_at"],
        postgresql_where=sa.text("outcome IN ('failed', 'indeterminate')"),
    )
    for table in APPEND_ONLY:
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION tallystick_append_only()"
        )
    op.add_column("usage_records", sa.Column("billed_at", INSTANT, nullable=True))
    op.add_column("adjustments", sa.Column("billed_at", INSTANT, nullable=True))
    op.add_column("adjustments", sa.Column("customer_id", sa.String(), nullable=True))
    _fill("usage_records", "SET billed_at = served_at")
    _fill(
        "adjustments",
        "SET billed_at = created_at, customer_id = r.customer_id "
        "FROM usage_records r WHERE r.usage_record_id = adjustments.usage_record_id",
    )
    op.alter_column("usage_records", "billed_at", nullable=False)
    op.alter_column("adjustments", "billed_at", nullable=False)
    op.alter_column("adjustments", "customer_id", nullable=False)
    op.create_index(
        "ix_usage_records_customer_billed", "usage_records", ["customer_id", "billed_at"]
    )
    op.create_index("ix_adjustments_customer_billed", "adjustments", ["customer_id", "billed_at"])


def _fill(table: str, change: str) -> None:
    # The one place where rows that never change gain a value: the column did not exist for them.
    op.execute(f"ALTER TABLE {table} DISABLE TRIGGER {table}_append_only")
    op.execute(f"UPDATE {table} {change}")
    op.execute(f"ALTER TABLE {table} ENABLE TRIGGER {table}_append_only")


def downgrade() -> None:
    """Go back; accounts and all that is theirs go with it."""
    op.drop_column("usage_records", "billed_at")
    op.drop_column("adjustments", "billed_at")
    op.drop_column("adjustments", "customer_id")
    op.drop_column("customers", "suspended_by")
    op.drop_index("ix_attempts_lost", "attempts")
    op.drop_column("meter_events", "withdrawn_at")
    for table in TABLES:
        op.drop_table(table)
