"""Payloads that are too large for a workflow's history, in parts."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the table; what is encrypted cannot be compressed, so nobody tries."""
    op.create_table(
        "payloads",
        sa.Column("workflow_id", sa.String(), nullable=False),
        sa.Column("digest", sa.String(), nullable=False),
        sa.Column("part", sa.Integer(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column(
            "needed_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("now()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("workflow_id", "digest", "part"),
    )
    op.execute("ALTER TABLE payloads ALTER COLUMN content SET STORAGE EXTERNAL")
    op.create_index("ix_payloads_needed_at", "payloads", ["needed_at"])


def downgrade() -> None:
    """Go back; workflows that still refer to a payload can then not be read any more."""
    op.drop_table("payloads")
