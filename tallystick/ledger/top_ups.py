"""Top-ups: credit that a customer buys, by itself or on somebody's word.

A top-up is asked for here, invoiced and paid at Stripe, and then turned into a grant, which closes
it in the same transaction. At most one is open at a time, by a unique key, so a balance that falls
below its threshold many times at once is filled up once. When one has failed, the next is a
person's decision: a card that was declined must not be charged again by every request.
"""

from datetime import datetime, timedelta

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger import accounts, terms, wallet
from tallystick.ledger.account_tables import GrantKind, TopUp
from tallystick.ledger.database import Transaction, entity
from tallystick.ledger.notices import raise_notice
from tallystick.money import from_nano_usd, plain


async def open_top_up(
    tx: Transaction, customer_id: str, nano_usd: int, *, automatic: bool, at: datetime
) -> int | None:
    """Open a top-up over whole cents and return its number; None where one is open already."""
    statement = (
        insert(TopUp)
        .values(
            customer_id=customer_id,
            amount_nano_usd=nano_usd,
            automatic=automatic,
            requested_at=at,
        )
        .on_conflict_do_nothing()
        .returning(col(TopUp.top_up_id))
    )
    return (await tx.execute(statement)).scalar_one_or_none()


async def open_by_itself(
    tx: Transaction, customer_id: str, nano_usd: int, at: datetime
) -> int | None:
    """Open one for a balance that has become low; None while the last one is open, or has failed.

    The caller holds the account locked.
    """
    last = (
        select(col(TopUp.granted_at))
        .where(col(TopUp.customer_id) == customer_id)
        .order_by(col(TopUp.top_up_id).desc())
        .limit(1)
    )
    row = (await tx.execute(last)).one_or_none()
    if row is not None and row.granted_at is None:
        return None
    return await open_top_up(tx, customer_id, nano_usd, automatic=True, at=at)


async def get(tx: Transaction, top_up_id: int) -> TopUp | None:
    """Return the top-up of that number."""
    row = (await tx.execute(select(TopUp).where(col(TopUp.top_up_id) == top_up_id))).one_or_none()
    return entity(TopUp, row) if row else None


async def of_invoice(tx: Transaction, stripe_invoice_id: str) -> TopUp | None:
    """Return the top-up that an invoice collects."""
    row = (
        await tx.execute(select(TopUp).where(col(TopUp.stripe_invoice_id) == stripe_invoice_id))
    ).one_or_none()
    return entity(TopUp, row) if row else None


async def attach_invoice(tx: Transaction, top_up_id: int, stripe_invoice_id: str) -> None:
    """Note which invoice collects it."""
    await tx.execute(
        update(TopUp)
        .where(col(TopUp.top_up_id) == top_up_id, col(TopUp.stripe_invoice_id).is_(None))
        .values(stripe_invoice_id=stripe_invoice_id)
    )


async def granted(tx: Transaction, top_up_id: int, at: datetime) -> bool:
    """Turn what was paid into credit and close the top-up; False where that is done.

    One that was given up is granted all the same: money that came in is credit. It expires as the
    customer's plan of that instant says.
    """
    top_up = await get(tx, top_up_id)
    assert top_up is not None  # noqa: S101 - top-ups are never removed
    account = await accounts.lock(tx, top_up.customer_id)
    assert account is not None  # noqa: S101 - nor are accounts, without which nothing is asked for
    await tx.execute(
        update(TopUp)
        .where(col(TopUp.top_up_id) == top_up_id, col(TopUp.granted_at).is_(None))
        .values(granted_at=at)
    )
    standing = await terms.standing(tx, top_up.customer_id, at)
    agreed = standing.agreed.terms.top_up if standing and standing.agreed else None
    days = agreed.expires_after_days if agreed else None
    return await wallet.grant(
        tx,
        account,
        kind=GrantKind.PAID,
        nano_usd=top_up.amount_nano_usd,
        source=f"top-up:{top_up_id}",
        at=at,
        expires_at=at + timedelta(days=days) if days else None,
    )


async def failed(tx: Transaction, top_up_id: int, failure: str, at: datetime) -> bool:
    """Give the top-up up and tell the customer why; False where it is closed.

    The caller has made sure that its invoice collects nothing any more.
    """
    statement = (
        update(TopUp)
        .where(
            col(TopUp.top_up_id) == top_up_id,
            col(TopUp.granted_at).is_(None),
            col(TopUp.failed_at).is_(None),
        )
        .values(failed_at=at, failure=failure)
        .returning(col(TopUp.customer_id), col(TopUp.amount_nano_usd), col(TopUp.automatic))
    )
    row = (await tx.execute(statement)).one_or_none()
    if row is None:
        return False
    amount = plain(from_nano_usd(row.amount_nano_usd))
    await raise_notice(
        tx,
        row.customer_id,
        key=f"top-up-failed:{top_up_id}",
        kind="top_up_failed",
        audience="customer",
        message=f"Credit of ${amount} could not be bought: {failure}. The balance is not filled up "
        "by itself again until a top-up has been paid.",
        facts={"amount_usd": amount, "failure": failure, "automatic": row.automatic},
        at=at,
    )
    return True
