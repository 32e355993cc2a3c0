"""Discrepancies: one row for each place where records differ, and all that came of it.

A place is known by its key. Whoever finds it again, in whatever run and after whatever crash, meets
the same row: `report` adds a line to its history only where something has changed, so a repeated
step leaves nothing behind. What a run does not find again is settled by `settle_unseen`, and only
by a comparison that has looked at its whole interval.

A repair is committed before it is made (`begin_repair`) under a key of discrepancy, repair and
subject, and completed after it. Somebody who died in between leaves a row without an outcome, and
whoever comes next knows that the repair may have been made, and repeats it by means that do no harm
twice.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, select, text, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.reconciliation_tables import (
    UNSETTLED,
    Discrepancy,
    DiscrepancyEvent,
    DiscrepancyState,
    Repair,
)
from tallystick.reconciling.findings import Finding, Pair


async def report(
    tx: Transaction, finding: Finding, *, reconciliation_id: int, settles: timedelta, at: datetime
) -> Discrepancy:
    """Enter a finding, or bring the row of its place up to date; returns the row.

    A place that a person has dismissed stays so while its amounts are the same. One that was
    settled and differs again, or otherwise than before, is open again; and so is a repaired one
    that differs as before although the other side had the time that it takes to show (`settles`).
    """
    known = await _by_key(tx, finding.key)
    state = _state(finding, known, at - settles)
    values = _values(finding) | {"state": state, "changed_at": at}
    if known is None:
        statement = (
            insert(Discrepancy)
            .values(
                key=finding.key,
                pair=finding.pair,
                kind=finding.kind,
                start_at=finding.start,
                end_at=finding.end,
                customer_id=finding.customer_id,
                place=dict(finding.place),
                found_at=at,
                found_by=reconciliation_id,
                **values,
            )
            .on_conflict_do_nothing(index_elements=["key"])
        )
        if not (await tx.execute(statement)).rowcount:
            # Another run was quicker by a moment.
            return await report(
                tx, finding, reconciliation_id=reconciliation_id, settles=settles, at=at
            )
    elif not _says_the_same(known, values):
        await tx.execute(
            update(Discrepancy).where(col(Discrepancy.key) == finding.key).values(**values)
        )
    else:
        return known
    row = await _by_key(tx, finding.key)
    assert row is not None  # noqa: S101 - written above
    await _add_event(tx, row, row.words, reconciliation_id, at)
    return row


def _state(finding: Finding, known: Discrepancy | None, shows_since: datetime) -> DiscrepancyState:
    if finding.explained:
        return DiscrepancyState.EXPLAINED
    if known is not None and known.amounts == _amounts(finding):
        if known.state == DiscrepancyState.DISMISSED:
            return DiscrepancyState.DISMISSED
        if known.state == DiscrepancyState.REPAIRED and known.changed_at > shows_since:
            return DiscrepancyState.REPAIRED
    return DiscrepancyState.OPEN


def _amounts(finding: Finding) -> dict[str, Any]:
    return {unit: dict(sides) for unit, sides in finding.amounts.items()}


def _values(finding: Finding) -> dict[str, Any]:
    return {
        "amounts": _amounts(finding),
        "tokens": finding.tokens,
        "usd": finding.usd,
        "cause": finding.cause,
        "words": finding.words,
        "requests": [dict(each) for each in finding.requests],
        "proposal": finding.proposal.as_dict() if finding.proposal else None,
    }


def _says_the_same(known: Discrepancy, values: Mapping[str, Any]) -> bool:
    return all(
        getattr(known, name) == value for name, value in values.items() if name != "changed_at"
    )


async def settle_unseen(
    tx: Transaction,
    pair: Pair,
    seen: Sequence[str],
    *,
    start: datetime,
    end: datetime,
    reconciliation_id: int,
    at: datetime,
) -> int:
    """Settle what was unsettled within [start, end) and is not among the keys seen; returns how
    many. For a comparison that has looked at all of the interval."""
    statement = select(Discrepancy).where(
        text(UNSETTLED),
        col(Discrepancy.pair) == pair,
        col(Discrepancy.start_at) >= start,
        col(Discrepancy.end_at) <= end,
        col(Discrepancy.key).not_in(seen),
    )
    rows = [entity(Discrepancy, row) for row in await tx.execute(statement)]
    for row in rows:
        await change_state(
            tx,
            row,
            DiscrepancyState.SETTLED,
            "both sides agree by now",
            at=at,
            reconciliation_id=reconciliation_id,
        )
    return len(rows)


async def change_state(
    tx: Transaction,
    discrepancy: Discrepancy,
    state: DiscrepancyState,
    words: str,
    *,
    at: datetime,
    reconciliation_id: int | None = None,
) -> None:
    """Let a discrepancy stand otherwise, and say why in its history."""
    await tx.execute(
        update(Discrepancy)
        .where(col(Discrepancy.discrepancy_id) == discrepancy.discrepancy_id)
        .values(state=state, changed_at=at)
    )
    discrepancy.state = state
    await _add_event(tx, discrepancy, words, reconciliation_id, at)


async def _add_event(
    tx: Transaction, row: Discrepancy, words: str, reconciliation_id: int | None, at: datetime
) -> None:
    await tx.execute(
        insert(DiscrepancyEvent).values(
            discrepancy_id=row.discrepancy_id,
            reconciliation_id=reconciliation_id,
            at=at,
            state=row.state,
            words=words,
            amounts=row.amounts,
        )
    )


# --- Reading --------------------------------------------------------------------------------------
async def get(tx: Transaction, discrepancy_id: int, *, locked: bool = False) -> Discrepancy | None:
    """Return one discrepancy; locked, nobody else changes or repairs it meanwhile."""
    statement = select(Discrepancy).where(col(Discrepancy.discrepancy_id) == discrepancy_id)
    row = (await tx.execute(statement.with_for_update() if locked else statement)).one_or_none()
    return entity(Discrepancy, row) if row else None


async def _by_key(tx: Transaction, key: str) -> Discrepancy | None:
    statement = select(Discrepancy).where(col(Discrepancy.key) == key).with_for_update()
    row = (await tx.execute(statement)).one_or_none()
    return entity(Discrepancy, row) if row else None


async def find(
    tx: Transaction,
    *,
    start: datetime | None = None,
    end: datetime | None = None,
    customer_id: str | None = None,
    pair: Pair | None = None,
    unsettled: bool = False,
) -> AsyncGenerator[Discrepancy, None]:
    """Yield discrepancies that begin in [start, end), in the order they were found."""
    conditions: list[ColumnElement[bool]] = []
    if start is not None:
        conditions.append(col(Discrepancy.start_at) >= start)
    if end is not None:
        conditions.append(col(Discrepancy.start_at) < end)
    if customer_id is not None:
        conditions.append(col(Discrepancy.customer_id) == customer_id)
    if pair is not None:
        conditions.append(col(Discrepancy.pair) == pair)
    statement = select(Discrepancy).where(*conditions).order_by(col(Discrepancy.discrepancy_id))
    if unsettled:
        statement = statement.where(text(UNSETTLED))
    async for row in await tx.stream(statement):
        yield entity(Discrepancy, row)


async def history(tx: Transaction, discrepancy_id: int) -> list[DiscrepancyEvent]:
    """Return all that was seen of a discrepancy or done about it, in order."""
    statement = (
        select(DiscrepancyEvent)
        .where(col(DiscrepancyEvent.discrepancy_id) == discrepancy_id)
        .order_by(col(DiscrepancyEvent.event_id))
    )
    return [entity(DiscrepancyEvent, row) for row in await tx.execute(statement)]


@dataclass(frozen=True, slots=True)
class Count:
    """How many discrepancies stand in a state, and how many tokens they are about."""

    discrepancies: int
    tokens: int


async def counts(tx: Transaction, *, start: datetime, end: datetime) -> dict[str, Count]:
    """Return counts by state of what lies in [start, end)."""
    statement = (
        select(
            col(Discrepancy.state),
            func.count().label("discrepancies"),
            func.coalesce(func.sum(col(Discrepancy.tokens)), 0).label("tokens"),
        )
        .where(col(Discrepancy.start_at) >= start, col(Discrepancy.start_at) < end)
        .group_by(col(Discrepancy.state))
    )
    return {
        str(row.state): Count(row.discrepancies, int(row.tokens))
        for row in await tx.execute(statement)
    }


# --- Repairs --------------------------------------------------------------------------------------
async def open_automatic(tx: Transaction) -> list[int]:
    """Return the ids of the open ones whose proposal needs no person, in the order of finding."""
    statement = (
        select(col(Discrepancy.discrepancy_id))
        .where(
            col(Discrepancy.state) == DiscrepancyState.OPEN,
            text(UNSETTLED),  # as the index has it, which a parameter would not be known to imply
            col(Discrepancy.proposal)["automatic"].as_boolean(),  # pyright: ignore[reportIndexIssue]
        )
        .order_by(col(Discrepancy.discrepancy_id))
    )
    return [row.discrepancy_id for row in await tx.execute(statement)]


async def begin_repair(
    tx: Transaction, discrepancy_id: int, repair: str, subject: str, *, by: str, at: datetime
) -> Repair:
    """Commit that a repair is about to be made; returns the row, which may have an outcome."""
    place = {"discrepancy_id": discrepancy_id, "repair": repair, "subject": subject}
    await tx.execute(
        insert(Repair)
        .values(**place, by=by, begun_at=at)
        .on_conflict_do_nothing(index_elements=[*place])
    )
    statement = select(Repair).where(
        *(getattr(Repair, name) == value for name, value in place.items())
    )
    return entity(Repair, (await tx.execute(statement)).one())


async def complete_repair(
    tx: Transaction, repair: Repair, outcome: str, words: str, at: datetime
) -> None:
    """Note how a repair ended (`done` or `refused`); what is known is left as it is."""
    await tx.execute(
        update(Repair)
        .where(col(Repair.repair_id) == repair.repair_id, col(Repair.outcome).is_(None))
        .values(outcome=outcome, words=words, done_at=at)
    )


async def repairs_of(tx: Transaction, discrepancy_id: int) -> list[Repair]:
    """Return what was done about a discrepancy, in order."""
    statement = (
        select(Repair)
        .where(col(Repair.discrepancy_id) == discrepancy_id)
        .order_by(col(Repair.repair_id))
    )
    return [entity(Repair, row) for row in await tx.execute(statement)]
