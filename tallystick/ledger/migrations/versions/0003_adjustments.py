"""Adjustments: corrections of usage records, as rows of differences that are only ever added.

The unique key is what makes booking a re-rating twice harmless: one adjustment a record and price
book.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the table and the trigger that keeps it append-only."""
    op.create_table(
        "adjustments",
        sa.Column("adjustment_id", sa.BigInteger(), nullable=False),
        sa.Column("usage_record_id", sa.BigInteger(), nullable=False),
        sa.Column("created_at", INSTANT, server_default=sa.text("now()"), nullable=False),
        sa.Column("price_book", sa.String(), nullable=False),
        sa.Column("reason", sa.String(), nullable=False),
        sa.Column("status", sa.String(), nullable=False),
        sa.Column("cost_usd", sa.Numeric(), nullable=False),
        sa.Column("charge_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=False),
        sa.Column("output_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_5m_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_write_1h_tokens", sa.BigInteger(), nullable=False),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=False),
        sa.Column("web_searches", sa.BigInteger(), nullable=False),
        sa.Column("lines", JSONB, nullable=False),
        sa.ForeignKeyConstraint(["usage_record_id"], ["usage_records.usage_record_id"]),
        sa.PrimaryKeyConstraint("adjustment_id"),
        sa.UniqueConstraint("usage_record_id", "price_book"),
    )
    op.create_index(op.f("ix_adjustments_created_at"), "adjustments", ["created_at"])
    op.execute(
        "CREATE TRIGGER adjustments_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON adjustments FOR EACH STATEMENT EXECUTE FUNCTION tallystick_append_only()"
    )


def downgrade() -> None:
    """Go back; adjustments go with it."""
    op.drop_table("adjustments")
