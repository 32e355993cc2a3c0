"""Paces that all processes keep together; unlogged, since none outlives a crash."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "paces",
        sa.Column("pace", sa.String(), nullable=False),
        sa.Column("free_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("pace"),
        prefixes=["UNLOGGED"],
    )


def downgrade() -> None:
    """Go back; nothing is lost that anybody would miss."""
    op.drop_table("paces")
