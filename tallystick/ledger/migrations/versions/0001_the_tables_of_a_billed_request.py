"""The tables of a billed request, and the triggers that keep them append-only.

The triggers hold whoever connects, a person with psql included: a usage record is never changed
or removed, an attempt or a meter event never removed. Corrections are new rows.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

APPEND_ONLY = {
    "usage_records": "UPDATE OR DELETE OR TRUNCATE",
    "plans": "UPDATE OR DELETE OR TRUNCATE",
    "attempts": "DELETE OR TRUNCATE",
    "meter_events": "DELETE OR TRUNCATE",
}
INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables, then the triggers."""
    op.create_table(
        "attempts",
        sa.Column("attempt_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=True),
        sa.Column("estimated_input_tokens", sa.Integer(), nullable=False),
        sa.Column("prompt_chars", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("started_at", INSTANT, nullable=False),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.Column("error_type", sa.String(), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("claude_request_id", sa.String(), nullable=True),
        sa.Column("message_id", sa.String(), nullable=True),
        sa.Column("usage", JSONB, nullable=True),
        sa.Column("reply", JSONB, nullable=True),
        sa.PrimaryKeyConstraint("attempt_id"),
        sa.UniqueConstraint("customer_id", "request_id", "number"),
    )
    op.create_index(op.f("ix_attempts_claude_request_id"), "attempts", ["claude_request_id"])
    op.create_index(op.f("ix_attempts_message_id"), "attempts", ["message_id"])
    op.create_index(
        "ix_attempts_open",
        "attempts",
        ["started_at"],
        postgresql_where=sa.text("outcome IN ('started', 'indeterminate')"),
    )
    op.create_table(
        "customers",
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("plan", sa.String(), nullable=False),
        sa.Column("stripe_customer_id", sa.String(), nullable=True),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("status_reason", sa.String(), nullable=True),
        sa.Column("time_zone", sa.String(), nullable=False),
        sa.Column("created_at", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.PrimaryKeyConstraint("customer_id"),
        sa.UniqueConstraint("stripe_customer_id"),
    )
    op.create_table(
        "plans",
        sa.Column("plan", sa.String(), nullable=False),
        sa.Column("valid_from", INSTANT, nullable=False),
        sa.Column("terms", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("plan", "valid_from"),
    )
    op.create_table(
        "usage_records",
        sa.Column("usage_record_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("attempt_id", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=True),
        sa.Column("served_at", INSTANT, nullable=False),
        sa.Column("recorded_at", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("message_id", sa.String(), nullable=True),
        sa.Column("claude_request_id", sa.String(), nullable=True),
        sa.Column("stop_reason", sa.String(), nullable=True),
        sa.Column("partial", sa.Boolean(), nullable=False),
        sa.Column("prompt_chars", sa.Integer(), nullable=False),
        sa.Column("response_chars", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_5m_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_1h_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("web_searches", sa.BigInteger(), nullable=False),
        sa.Column("evidence", JSONB, nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("price_book", sa.String(), nullable=False),
        sa.Column("plan", sa.String(), nullable=False),
        sa.Column("plan_valid_from", INSTANT, nullable=False),
        sa.Column("cost_usd", sa.Numeric(), nullable=True),
        sa.Column("charge_nano_usd", sa.BigInteger(), nullable=True),
        sa.Column("lines", JSONB, nullable=False),
        sa.Column("explanation", sa.String(), nullable=False),
        sa.Column("warnings", JSONB, nullable=False),
        sa.Column("caller_metadata", JSONB, nullable=True),
        sa.ForeignKeyConstraint(
            ["attempt_id"],
            ["attempts.attempt_id"],
        ),
        sa.PrimaryKeyConstraint("usage_record_id"),
        sa.UniqueConstraint("attempt_id"),
        sa.UniqueConstraint("customer_id", "request_id"),
    )
    op.create_index(op.f("ix_usage_records_conversation_id"), "usage_records", ["conversation_id"])
    op.create_index(
        "ix_usage_records_customer_served", "usage_records", ["customer_id", "served_at"]
    )
    op.create_index(op.f("ix_usage_records_message_id"), "usage_records", ["message_id"])
    op.create_index(op.f("ix_usage_records_served_at"), "usage_records", ["served_at"])
    op.create_table(
        "meter_events",
        sa.Column("meter_event_id", sa.BigInteger(), nullable=False),
        sa.Column("usage_record_id", sa.BigInteger(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("identifier", sa.String(), nullable=False),
        sa.Column("meter", sa.String(), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("occurred_at", INSTANT, nullable=False),
        sa.Column("stripe_customer_id", sa.String(), nullable=True),
        sa.Column("first_sent_at", INSTANT, nullable=True),
        sa.Column("delivered_at", INSTANT, nullable=True),
        sa.Column("parked_at", INSTANT, nullable=True),
        sa.Column("parked_reason", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(
            ["usage_record_id"],
            ["usage_records.usage_record_id"],
        ),
        sa.PrimaryKeyConstraint("meter_event_id"),
        sa.UniqueConstraint("identifier"),
        sa.UniqueConstraint("usage_record_id", "meter"),
    )
    op.create_index("ix_meter_events_request", "meter_events", ["customer_id", "request_id"])
    op.create_index(
        "ix_meter_events_waiting",
        "meter_events",
        ["occurred_at"],
        postgresql_where=sa.text("delivered_at IS NULL"),
    )
    op.create_index(
        "ix_meter_events_window", "meter_events", ["stripe_customer_id", "meter", "occurred_at"]
    )

    op.execute(
        """
        CREATE FUNCTION tallystick_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION '% is append-only: % refused, book a correction instead',
                TG_TABLE_NAME, TG_OP USING ERRCODE = 'restrict_violation';
        END $$
        """
    )
    for table, operations in APPEND_ONLY.items():
        op.execute(
            f"CREATE TRIGGER {table}_append_only BEFORE {operations} ON {table} "
            "FOR EACH STATEMENT EXECUTE FUNCTION tallystick_append_only()"
        )


def downgrade() -> None:
    """Remove everything; for a development database only, since the ledger goes with it."""
    for table in ("meter_events", "usage_records", "attempts", "customers", "plans"):
        op.drop_table(table)
    op.execute("DROP FUNCTION tallystick_append_only")
