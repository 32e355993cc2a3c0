"""Results of batch jobs: there to be fetched for a while, then without what was said.

A job's results are what it was submitted for, so they are kept without anybody asking, but no
longer than Claude keeps its own. What is left is that each item had its answer, and what it cost.
Whoever wants what was said for longer has it kept (`ledger.contents`).
"""

from datetime import timedelta

from sqlalchemy import text

from tallystick.ledger.database import Transaction

KEPT = timedelta(days=29)
"""From the end of a job on (facts on Claude, 'Batches')."""

# In the order of the key, so that what was emptied before is passed over in one go.
_EMPTY_SOME = text("""
WITH job AS (
    SELECT job_id FROM batch_jobs
    WHERE finished_at <= now() - :kept AND results_gone_at IS NULL
    ORDER BY finished_at
    LIMIT 1
    FOR UPDATE SKIP LOCKED
), emptied AS (
    UPDATE batch_results r SET line = NULL
    FROM (
        SELECT b.job_id, b.number FROM batch_results b JOIN job USING (job_id)
        WHERE b.line IS NOT NULL
        ORDER BY b.number
        LIMIT :most
    ) old
    WHERE r.job_id = old.job_id AND r.number = old.number
    RETURNING r.number
), done AS (
    UPDATE batch_jobs SET results_gone_at = now()
    WHERE job_id IN (SELECT job_id FROM job) AND (SELECT count(*) FROM emptied) < :most
)
SELECT count(*) FROM emptied
""")
_EMPTY_ALL = text("""
WITH jobs AS (
    UPDATE batch_jobs SET results_gone_at = now()
    WHERE customer_id = :customer_id AND finished_at IS NOT NULL AND results_gone_at IS NULL
    RETURNING job_id
), emptied AS (
    UPDATE batch_results r SET line = NULL FROM jobs
    WHERE r.job_id = jobs.job_id AND r.line IS NOT NULL
    RETURNING r.number
)
SELECT count(*) FROM emptied
""")


async def remove_old(tx: Transaction, limit: int) -> int:
    """Take what was said from results of one job that ended long ago; returns from how many.

    At the most from `limit`. Fewer were the last of the job, and there may be another.
    """
    statement = {"kept": KEPT, "most": limit}
    return (await tx.execute(_EMPTY_SOME, statement)).scalar_one()


async def erase(tx: Transaction, customer_id: str) -> int:
    """Take what was said from the results of all jobs of a customer that have ended."""
    return (await tx.execute(_EMPTY_ALL, {"customer_id": customer_id})).scalar_one()
