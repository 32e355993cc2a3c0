"""The three records row by row: what Claude served, what the ledger charged, what Stripe counts.

Claude's and Stripe's are the stand-ins' journals, which know what was served or accepted whatever
became of the answer. A lost call has no message id on our side. It is recognised by its body: the
digest in Claude's journal belongs to the request that another call with the same body answered.
Requests that are compared therefore need bodies of their own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlmodel import SQLModel

from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Attempt, Customer, MeterEvent, UsageRecord
from tallystick.metering import meter_identifier
from tallystick.sandbox.remote import Control

Row = dict[str, Any]
Key = tuple[str, str]
"""Names a request: the customer's id and the request's."""


@dataclass(frozen=True, slots=True)
class Books:
    """The three records, row by row, and who is who in Stripe."""

    calls: list[Row]
    """Claude's journal: what was served."""
    attempts: list[Row]
    records: list[Row]
    outbox: list[Row]
    accepted: list[Row]
    """Stripe's journal: what was accepted, whether it counts or not."""
    customers: dict[str, str | None]
    """Stripe's customer id by ours."""


async def read_books(ledger: Ledger, claude: Control, stripe: Control) -> Books:
    """Read all three records whole."""

    async def rows(table: type[SQLModel]) -> list[Row]:
        return [dict(row._mapping) for row in await tx.execute(select(table))]

    async with ledger.begin() as tx:
        attempts, records, outbox, customers = [
            await rows(table) for table in (Attempt, UsageRecord, MeterEvent, Customer)
        ]
    return Books(
        calls=await claude.journal(),
        attempts=attempts,
        records=records,
        outbox=outbox,
        accepted=await stripe.journal(),
        customers={row["customer_id"]: row["stripe_customer_id"] for row in customers},
    )


def key_of(row: Row) -> Key:
    """Return which request a row of the ledger belongs to."""
    return row["customer_id"], row["request_id"]


def named(key: Key) -> str:
    """Write a request's name as people do."""
    return "/".join(key)


def owners(books: Books) -> dict[str, Key]:
    """Return which request each body belongs to, of those that have been answered."""
    answered = {a["message_id"]: key_of(a) for a in books.attempts if a["outcome"] == "succeeded"}
    return {
        call["body_sha256"]: answered[call["message_id"]]
        for call in books.calls
        if call["message_id"] in answered
    }


def calls_of(books: Books, key: Key) -> list[Row]:
    """Return the calls Claude served for one request that has been answered."""
    digests = {digest for digest, owner in owners(books).items() if owner == key}
    return [call for call in books.calls if call["body_sha256"] in digests]


def believing_receipts(books: Books) -> tuple[Books, int]:
    """Return the books as if Stripe counted what it acknowledged, and how many events it did not.

    Some faults have Stripe say 200 and then lose an event, count it twice or for somebody else. A
    sender cannot know; finding that out afterwards is what reconciliation is for.
    """
    owed = {
        meter_identifier(*key_of(event), event["meter"]): books.customers.get(event["customer_id"])
        for event in books.outbox
    }
    accepted, misplaced = as_acknowledged(books.accepted, owed)
    return replace(books, accepted=accepted), misplaced


def as_acknowledged(
    accepted: Sequence[Row], customers: Mapping[str, str | None]
) -> tuple[list[Row], int]:
    """Return Stripe's journal as its receipts tell it, and how many events they were wrong about.

    Of an identifier that such a fault has struck, the first entry counts, and for the customer who
    was named, where `customers` (by identifier) knows who that was.
    """
    struck = {entry["identifier"] for entry in accepted if entry["fault"] is not None}
    seen: set[str] = set()
    told: list[Row] = []
    for entry in accepted:
        identifier = entry["identifier"]
        if identifier not in struck:
            told.append(entry)
            continue
        customer = customers.get(identifier, entry["customer"])
        told.append({**entry, "effective": identifier not in seen, "customer": customer})
        seen.add(identifier)
    return told, len(struck)
