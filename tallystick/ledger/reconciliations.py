"""Runs of the reconciliation: one row each, opened once however often its first step is repeated.

A run is known by the workflow run that it is, so a step repeated after a crash meets the row that
the first try has opened.
"""

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import func, literal, select, update
from sqlalchemy.dialects.postgresql import JSONB, insert
from sqlmodel import col

from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.reconciliation_tables import Reconciliation

UNSETTLED_REPORTS = "unsettled"


async def open_run(
    tx: Transaction, *, run: str, kind: str, start: datetime, end: datetime, at: datetime
) -> int:
    """Return the id of the run over [start, end), opening it unless it is open already."""
    await tx.execute(
        insert(Reconciliation)
        .values(run=run, kind=kind, start_at=start, end_at=end, begun_at=at)
        .on_conflict_do_nothing(index_elements=["run"])
    )
    found = select(Reconciliation).where(col(Reconciliation.run) == run)
    opened = entity(Reconciliation, (await tx.execute(found)).one()).reconciliation_id
    assert opened is not None  # noqa: S101 - it was read
    return opened


async def note_claude(
    tx: Transaction, reconciliation_id: int, state: str | None, refreshed_at: datetime | None
) -> None:
    """Note how the comparison with Anthropic's reports went (None while it is not done), and the
    reports' watermark."""
    await _update(tx, reconciliation_id, claude_state=state, refreshed_at=refreshed_at)


async def note_totals(
    tx: Transaction, reconciliation_id: int, name: str, totals: Mapping[str, Any]
) -> None:
    """Keep the totals of one record (`claude`, `ledger`, `outbox`, `stripe`), JSON values only."""
    await _merge(tx, reconciliation_id, "tallied", {name: dict(totals)})


async def count_calls(tx: Transaction, reconciliation_id: int, step: str, calls: int) -> None:
    """Note the calls that a step made; said again, the latest number holds."""
    await _merge(tx, reconciliation_id, "calls", {step: calls})


async def close_run(tx: Transaction, reconciliation_id: int, at: datetime) -> None:
    """Note that the run is done; Anthropic's reports that it has not read by now were too late."""
    state = func.coalesce(col(Reconciliation.claude_state), UNSETTLED_REPORTS)
    await _update(tx, reconciliation_id, finished_at=at, claude_state=state)


async def compared_until(tx: Transaction) -> datetime | None:
    """Return until when the daily runs have compared all that there is, None before the first one.

    What a run could not compare with Anthropic's reports begins with the run: each makes up for
    those before it, so nothing lies open before the last one that got through.
    """
    daily = col(Reconciliation.kind) == "daily"
    through = col(Reconciliation.claude_state).in_(("compared", "no_admin_key"))
    last = func.max(col(Reconciliation.end_at)).filter(through)
    first = func.min(col(Reconciliation.start_at))
    found = select(func.coalesce(last, first)).where(
        daily, col(Reconciliation.finished_at).is_not(None)
    )
    return (await tx.execute(found)).scalar_one()


async def get(tx: Transaction, reconciliation_id: int) -> Reconciliation:
    """Return a run; raises NoResultFound where there is none."""
    statement = select(Reconciliation).where(
        col(Reconciliation.reconciliation_id) == reconciliation_id
    )
    return entity(Reconciliation, (await tx.execute(statement)).one())


async def latest(
    tx: Transaction, limit: int, *, start: datetime, end: datetime
) -> list[Reconciliation]:
    """Return the runs over any hour of [start, end) that began last, the last one first."""
    statement = (
        select(Reconciliation)
        .where(col(Reconciliation.start_at) < end, col(Reconciliation.end_at) > start)
        .order_by(col(Reconciliation.reconciliation_id).desc())
        .limit(limit)
    )
    return [entity(Reconciliation, row) for row in await tx.execute(statement)]


async def _update(tx: Transaction, reconciliation_id: int, **values: Any) -> None:
    await tx.execute(
        update(Reconciliation)
        .where(col(Reconciliation.reconciliation_id) == reconciliation_id)
        .values(**values)
    )


async def _merge(
    tx: Transaction, reconciliation_id: int, column: str, values: Mapping[str, Any]
) -> None:
    known: Any = getattr(Reconciliation, column)
    merged = func.coalesce(known, literal({}, JSONB)).op("||")(literal(dict(values), JSONB))
    await _update(tx, reconciliation_id, **{column: merged})
