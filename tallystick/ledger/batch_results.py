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

_EMPTY = """
WITH jobs AS (
    UPDATE batch_jobs SET results_gone_at = now()
    WHERE finished_at IS NOT NULL AND results_gone_at IS NULL AND {which}
    RETURNING job_id
), emptied AS (
    UPDATE batch_results r SET line = NULL FROM jobs
    WHERE r.job_id = jobs.job_id AND r.line IS NOT NULL
    RETURNING r.number
)
SELECT count(*) FROM emptied
"""
_EMPTY_OLDEST = text(
    _EMPTY.format(
        which="""job_id = (
        SELECT job_id FROM batch_jobs
        WHERE finished_at <= now() - :kept AND results_gone_at IS NULL
        ORDER BY finished_at
        LIMIT 1
        FOR UPDATE SKIP LOCKED
    )"""
    )
)
_EMPTY_ALL = text(_EMPTY.format(which="customer_id = :customer_id"))


async def remove_old(tx: Transaction) -> int:
    """Take what was said from the results of one job that ended long ago; returns from how many."""
    return (await tx.execute(_EMPTY_OLDEST, {"kept": KEPT})).scalar_one()


async def erase(tx: Transaction, customer_id: str) -> int:
    """Take what was said from the results of all jobs of a customer that have ended."""
    return (await tx.execute(_EMPTY_ALL, {"customer_id": customer_id})).scalar_one()
