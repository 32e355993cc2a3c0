"""Large payloads: stored by whoever encodes one, fetched by reference, forgotten with its workflow.

A part is written once under the digest of the whole, so storing is repeated without effect; that
refreshes `needed_at`, and what was needed a moment ago is not swept. When nobody can need it any
more only Temporal knows: not before its workflow is closed and past retention, and a workflow may
wait for months. So the sweep asks for workflows of old payloads, forgets those that are unknown
there, and looks at the others again later.
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import delete, func, select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.contracts import PayloadPart
from tallystick.ledger.database import Transaction
from tallystick.ledger.payload_tables import PayloadRow


async def keep(tx: Transaction, part: PayloadPart, content: bytes) -> None:
    """Store one part; one that is there already is only needed anew."""
    row = insert(PayloadRow).values(**part.model_dump(), content=content)
    await tx.execute(
        row.on_conflict_do_update(
            index_elements=["workflow_id", "digest", "part"], set_={"needed_at": func.now()}
        )
    )


async def fetch(tx: Transaction, part: PayloadPart) -> bytes | None:
    """Return one part, or None where it is not there."""
    statement = select(col(PayloadRow.content)).where(
        col(PayloadRow.workflow_id) == part.workflow_id,
        col(PayloadRow.digest) == part.digest,
        col(PayloadRow.part) == part.part,
    )
    return (await tx.execute(statement)).scalar_one_or_none()


async def old_workflows(tx: Transaction, before: datetime, limit: int) -> Sequence[str]:
    """Return workflows that have payloads which nobody has needed since `before`."""
    statement = (
        select(col(PayloadRow.workflow_id))
        .where(col(PayloadRow.needed_at) < before)
        .distinct()
        .limit(limit)
    )
    return (await tx.execute(statement)).scalars().all()


async def still_needed(tx: Transaction, workflow_id: str, at: datetime) -> None:
    """Note that the workflow is still there, and may need its payloads."""
    await tx.execute(
        update(PayloadRow).where(col(PayloadRow.workflow_id) == workflow_id).values(needed_at=at)
    )


async def forget(tx: Transaction, workflow_id: str, before: datetime) -> None:
    """Delete what the workflow has not needed since `before`."""
    await tx.execute(
        delete(PayloadRow).where(
            col(PayloadRow.workflow_id) == workflow_id, col(PayloadRow.needed_at) < before
        )
    )
