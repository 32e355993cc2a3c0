"""When what was said in a batch job's results was taken away."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column, and an index that finds the jobs whose results are still to go."""
    op.add_column("batch_jobs", sa.Column("results_gone_at", sa.DateTime(timezone=True)))
    op.create_index(
        "ix_batch_jobs_results",
        "batch_jobs",
        ["finished_at"],
        postgresql_where=sa.text("finished_at IS NOT NULL AND results_gone_at IS NULL"),
    )


def downgrade() -> None:
    """Go back; what was taken away stays so."""
    op.drop_index("ix_batch_jobs_results", "batch_jobs")
    op.drop_column("batch_jobs", "results_gone_at")
