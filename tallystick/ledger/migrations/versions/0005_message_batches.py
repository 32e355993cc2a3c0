"""Message batches: jobs, items, shards, tries, results; meter events that tell sums.

A meter event may stand for several records now. So it says itself in which period its charge is
billed, which its record, or the adjustment that brought a first price, has told until now.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)
TABLES = ("batch_results", "batch_tries", "batch_shards", "batch_items", "batch_jobs")


def upgrade() -> None:
    """Make the tables, and date the meter events there are."""
    op.create_table(
        "batch_jobs",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("estimated_input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("highest_cost_usd", sa.Numeric(), nullable=False),
        sa.Column("max_cost_usd", sa.Numeric(), nullable=True),
        sa.Column("caller_metadata", JSONB, nullable=True),
        sa.Column("created_at", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.Column("admitted_at", INSTANT, nullable=True),
        sa.Column("highest_charge_nano_usd", sa.BigInteger(), nullable=True),
        sa.Column("cancelled_at", INSTANT, nullable=True),
        sa.Column("finished_at", INSTANT, nullable=True),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("job_id"),
    )
    op.create_index("ix_batch_jobs_customer", "batch_jobs", ["customer_id", "created_at"])
    op.create_table(
        "batch_items",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("document", sa.String(), nullable=True),
        sa.Column("fingerprint", sa.String(), nullable=False),
        sa.Column("model", sa.String(), nullable=False),
        sa.Column("params", sa.Text(), nullable=True),
        sa.Column("body_bytes", sa.Integer(), nullable=False),
        sa.Column("estimated_input_tokens", sa.Integer(), nullable=False),
        sa.Column("prompt_chars", sa.Integer(), nullable=False),
        sa.Column("highest_cost_usd", sa.Numeric(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["batch_jobs.job_id"]),
        sa.PrimaryKeyConstraint("job_id", "number"),
        sa.UniqueConstraint("customer_id", "request_id"),
    )
    op.create_table(
        "batch_shards",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("items", sa.Integer(), nullable=False),
        sa.Column("first_number", sa.Integer(), nullable=False),
        sa.Column("last_number", sa.Integer(), nullable=False),
        sa.Column("planned_at", INSTANT, nullable=False),
        sa.Column("sent_at", INSTANT, nullable=True),
        sa.Column("lost_at", INSTANT, nullable=True),
        sa.Column("batch_id", sa.String(), nullable=True),
        sa.Column("not_ours", JSONB, nullable=False),
        sa.Column("begun_at", INSTANT, nullable=True),
        sa.Column("expires_at", INSTANT, nullable=True),
        sa.Column("ended_at", INSTANT, nullable=True),
        sa.Column("request_counts", JSONB, nullable=True),
        sa.Column("lines_read", sa.Integer(), nullable=False),
        sa.Column("bytes_read", sa.BigInteger(), nullable=False),
        sa.Column("chunks", sa.Integer(), nullable=False),
        sa.Column("tallied", JSONB, nullable=False),
        sa.Column("succeeded", sa.Integer(), nullable=False),
        sa.Column("errored", sa.Integer(), nullable=False),
        sa.Column("expired", sa.Integer(), nullable=False),
        sa.Column("canceled", sa.Integer(), nullable=False),
        sa.Column("cost_usd", sa.Numeric(), nullable=False),
        sa.Column("charge_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("saved_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("trouble", sa.String(), nullable=True),
        sa.ForeignKeyConstraint(["job_id"], ["batch_jobs.job_id"]),
        sa.PrimaryKeyConstraint("job_id", "shard"),
        sa.UniqueConstraint("batch_id"),
    )
    op.create_index(
        "ix_batch_shards_unfinished",
        "batch_shards",
        ["job_id"],
        postgresql_where=sa.text("state IN ('planned', 'sent', 'running', 'ended')"),
    )
    op.create_table(
        "batch_tries",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("shard", sa.Integer(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("attempt_id", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["attempt_id"], ["attempts.attempt_id"]),
        sa.PrimaryKeyConstraint("job_id", "number", "shard"),
        sa.UniqueConstraint("attempt_id"),
    )
    op.create_table(
        "batch_results",
        sa.Column("job_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("attempt_id", sa.BigInteger(), nullable=True),
        sa.Column("error_type", sa.String(), nullable=True),
        sa.Column("error_message", sa.String(), nullable=True),
        sa.Column("metered_as", sa.String(), nullable=True),
        sa.Column("line", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("job_id", "number"),
    )
    op.execute(
        "CREATE TRIGGER batch_tries_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON batch_tries FOR EACH STATEMENT EXECUTE FUNCTION tallystick_append_only()"
    )
    op.alter_column("meter_events", "usage_record_id", nullable=True)
    op.add_column("meter_events", sa.Column("billed_at", INSTANT, nullable=True))
    op.execute(
        "UPDATE meter_events SET billed_at = CASE WHEN r.charge_nano_usd IS NOT NULL "
        "THEN r.billed_at ELSE coalesce((SELECT min(a.billed_at) FROM adjustments a "
        "WHERE a.usage_record_id = r.usage_record_id), r.billed_at) END "
        "FROM usage_records r WHERE r.usage_record_id = meter_events.usage_record_id"
    )
    op.alter_column("meter_events", "billed_at", nullable=False)
    op.create_index(
        "ix_meter_events_charges",
        "meter_events",
        ["customer_id", "occurred_at"],
        postgresql_where=sa.text("meter = 'tallystick_charge_nano_usd'"),
    )


def downgrade() -> None:
    """Go back, where no meter event tells the sum of a batch; what was sent stays sent."""
    op.drop_column("meter_events", "billed_at")  # its index goes with it
    op.alter_column("meter_events", "usage_record_id", nullable=False)
    for table in TABLES:
        op.drop_table(table)
