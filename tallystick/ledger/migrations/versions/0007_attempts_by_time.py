"""A small index that finds the calls of an hour: reconciliation looks at those without a record."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the index."""
    op.create_index("ix_attempts_started", "attempts", ["started_at"], postgresql_using="brin")


def downgrade() -> None:
    """Go back."""
    op.drop_index("ix_attempts_started", "attempts")
