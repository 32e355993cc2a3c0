"""Caps, the room that requests in flight reserve under them, and each customer's own terms.

Negotiated terms are append-only like plans: a record is charged by rows that must stay readable.
Reservations are not: a row lives as long as its request.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Make the tables and columns; charges move into the index that sums them."""
    op.add_column("customers", sa.Column("spend_cap_usd", sa.Numeric(), nullable=True))
    op.create_table(
        "customer_terms",
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("valid_from", INSTANT, nullable=False),
        sa.Column("terms", JSONB, nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("customer_id", "valid_from"),
    )
    op.execute(
        "CREATE TRIGGER customer_terms_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON customer_terms FOR EACH STATEMENT EXECUTE FUNCTION tallystick_append_only()"
    )
    op.create_table(
        "reservations",
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("conversation_id", sa.String(), nullable=True),
        sa.Column("amount_nano_usd", sa.BigInteger(), nullable=False),
        sa.Column("reserved_at", INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("customer_id", "request_id"),
    )
    op.add_column("usage_records", sa.Column("customer_terms_from", INSTANT, nullable=True))
    op.drop_index("ix_usage_records_customer_served", "usage_records")
    op.create_index(
        "ix_usage_records_customer_served",
        "usage_records",
        ["customer_id", "served_at"],
        postgresql_include=["charge_nano_usd"],
    )


def downgrade() -> None:
    """Go back; negotiated terms go with it."""
    op.drop_index("ix_usage_records_customer_served", "usage_records")
    op.create_index(
        "ix_usage_records_customer_served", "usage_records", ["customer_id", "served_at"]
    )
    op.drop_column("usage_records", "customer_terms_from")
    op.drop_table("reservations")
    op.drop_table("customer_terms")
    op.drop_column("customers", "spend_cap_usd")
