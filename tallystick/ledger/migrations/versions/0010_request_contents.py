"""What was asked and answered, kept for customers that want it, and for how long."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the tables, then the trigger; nothing is kept for anybody yet."""
    op.create_table(
        "content_terms",
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("valid_from", sa.DateTime(timezone=True), nullable=False),
        sa.Column("days", sa.Integer(), nullable=True),
        sa.Column("erases", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["customer_id"], ["customers.customer_id"]),
        sa.PrimaryKeyConstraint("customer_id", "valid_from"),
    )
    op.execute(
        "CREATE TRIGGER content_terms_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON content_terms FOR EACH STATEMENT EXECUTE FUNCTION tallystick_append_only()"
    )
    op.create_table(
        "request_contents",
        sa.Column("customer_id", sa.String(), nullable=False),
        sa.Column("request_id", sa.String(), nullable=False),
        sa.Column("params", sa.Text(), nullable=False),
        sa.Column("reply", sa.Text(), nullable=False),
        sa.Column("goes_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["customer_id", "request_id"],
            ["usage_records.customer_id", "usage_records.request_id"],
        ),
        sa.PrimaryKeyConstraint("customer_id", "request_id"),
    )
    op.create_index("ix_request_contents_goes_at", "request_contents", ["goes_at"])


def downgrade() -> None:
    """Go back; what was kept is then gone."""
    op.drop_table("request_contents")
    op.drop_table("content_terms")
