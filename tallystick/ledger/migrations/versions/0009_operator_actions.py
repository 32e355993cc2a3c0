"""What operators have done about things that waited, append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table, then the trigger."""
    op.create_table(
        "operator_actions",
        sa.Column("operator_action_id", sa.BigInteger(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("action", sa.String(), nullable=False),
        sa.Column("subject", sa.String(), nullable=False),
        sa.Column("customer_id", sa.String(), nullable=True),
        sa.Column("reason", sa.String(), nullable=True),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("operator_action_id"),
    )
    op.create_index("ix_operator_actions_customer", "operator_actions", ["customer_id"])
    op.execute(
        "CREATE TRIGGER operator_actions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE "
        "ON operator_actions FOR EACH STATEMENT EXECUTE FUNCTION tallystick_append_only()"
    )


def downgrade() -> None:
    """Go back; what operators have done is then forgotten."""
    op.drop_table("operator_actions")
