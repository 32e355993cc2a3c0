"""The tally: what Claude served, what the ledger charged, what Stripe was told, laid side by side.

Nothing here trusts a sum. Every call in Claude's journal must be some attempt, every answered
attempt a call, every record the one record of its request with the tokens of its call, every meter
event of a record exactly one event that counts at Stripe; only then are the totals compared too,
per token kind and in money. A call that nobody can name, a token that was counted twice and an
event that is missing each show up as a line of their own.

A lost call has no message id on our side. It is recognised by its body: the digest in Claude's
journal belongs to the request that another call with the same body answered. Requests that are
tallied therefore need bodies of their own.
"""

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import select
from sqlmodel import SQLModel

from tallystick.ledger.database import Ledger
from tallystick.ledger.tables import Attempt, Customer, MeterEvent, UsageRecord
from tallystick.metering import CHARGE_METER, TOKEN_KINDS, meter_identifier, token_meter

Row = dict[str, Any]
Key = tuple[str, str]


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


class TallyError(AssertionError):
    """The three records do not tally; the message has a line for each difference."""


class Journal(Protocol):
    """A stand-in's control API."""

    async def get(self, path: str) -> Any: ...


async def read_books(ledger: Ledger, claude: Journal, stripe: Journal) -> Books:
    """Read all three records whole."""

    async def rows(table: type[SQLModel]) -> list[Row]:
        return [dict(row._mapping) for row in await tx.execute(select(table))]

    async with ledger.begin() as tx:
        attempts, records, outbox, customers = [
            await rows(table) for table in (Attempt, UsageRecord, MeterEvent, Customer)
        ]
    return Books(
        calls=await _pages(claude, "rows"),
        attempts=attempts,
        records=records,
        outbox=outbox,
        accepted=await _pages(stripe, "entries"),
        customers={row["customer_id"]: row["stripe_customer_id"] for row in customers},
    )


async def _pages(journal: Journal, name: str) -> list[Row]:
    rows: list[Row] = []
    while page := (await journal.get(f"journal?after={len(rows)}"))[name]:
        rows += page
    return rows


def must_tally(books: Books) -> None:
    """Raise TallyError unless the three records agree in every row and in every sum."""
    found = differences(books)
    if found:
        raise TallyError("\n".join(["the records do not tally:", *found]))


def differences(books: Books) -> list[str]:
    """Return every disagreement, in words."""
    return [
        *_calls_against_attempts(books),
        *_records_against_calls(books),
        *_outbox_against_records(books),
        *_stripe_against_outbox(books),
        *_totals(books),
    ]


def calls_of(books: Books, key: Key) -> list[Row]:
    """Return the calls Claude served for one request that has been answered."""
    digests = {digest for digest, owner in _owners(books).items() if owner == key}
    return [call for call in books.calls if call["body_sha256"] in digests]


def _key(row: Row) -> Key:
    return row["customer_id"], row["request_id"]


def _owners(books: Books) -> dict[str, Key]:
    """Return which request each body belongs to."""
    answered = {a["message_id"]: _key(a) for a in books.attempts if a["outcome"] == "succeeded"}
    return {
        call["body_sha256"]: answered[call["message_id"]]
        for call in books.calls
        if call["message_id"] in answered
    }


def _calls_against_attempts(books: Books) -> list[str]:
    found: list[str] = []
    served = Counter(call["message_id"] for call in books.calls)
    known = Counter(a["message_id"] for a in books.attempts if a["outcome"] == "succeeded")
    for message_id, count in (known - served).items():
        found.append(f"{count} attempt(s) have the reply {message_id}, which Claude did not serve")
    for attempt in books.attempts:
        if attempt["outcome"] == "started":
            found.append(f"{_key(attempt)}: attempt {attempt['number']} has no outcome")
    owners = _owners(books)
    lost = Counter(
        owners.get(c["body_sha256"]) for c in books.calls if c["message_id"] not in known
    )
    unknown = Counter(_key(a) for a in books.attempts if a["outcome"] == "indeterminate")
    if nameless := lost.pop(None, 0):
        found.append(f"Claude served {nameless} call(s) for a request that was never answered")
    for key, count in lost.items():
        if count > unknown[key]:
            found.append(
                f"{key}: Claude served {count} call(s) whose reply was lost, "
                f"and {unknown[key]} attempt(s) are indeterminate"
            )
    return found


def _records_against_calls(books: Books) -> list[str]:
    found: list[str] = []
    records = Counter(_key(record) for record in books.records)
    for key in {_key(a) for a in books.attempts if a["outcome"] == "succeeded"} | records.keys():
        if records[key] != 1:
            found.append(f"{key}: {records[key]} usage records")
    calls = {call["message_id"]: call for call in books.calls}
    attempts = {attempt["attempt_id"]: attempt for attempt in books.attempts}
    for record in books.records:
        attempt = attempts.get(record["attempt_id"])
        call = calls.get(record["message_id"])
        if attempt is None or attempt["message_id"] != record["message_id"]:
            found.append(f"{_key(record)}: the record does not bill its attempt's reply")
        if call is None:
            found.append(f"{_key(record)}: the record bills a reply that Claude did not serve")
            continue
        found += [
            f"{_key(record)}: {record[f'{kind}_tokens']} {kind} tokens billed, "
            f"{call['billable'][kind]} served"
            for kind in TOKEN_KINDS
            if record[f"{kind}_tokens"] != call["billable"][kind]
        ]
    return found


def _outbox_against_records(books: Books) -> list[str]:
    found: list[str] = []
    queued: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for event in books.outbox:
        queued[event["usage_record_id"]].append((event["meter"], event["value"]))
        if event["delivered_at"] is None:
            found.append(f"{_key(event)}: {event['meter']} is not delivered")
    for record in books.records:
        due = [
            (CHARGE_METER, record["charge_nano_usd"] or 0),
            *((token_meter(kind), record[f"{kind}_tokens"]) for kind in TOKEN_KINDS),
        ]
        wanted = sorted((meter, value) for meter, value in due if value)
        if sorted(queued.pop(record["usage_record_id"], [])) != wanted:
            found.append(f"{_key(record)}: its meter events are not what the record says")
    if queued:
        found.append(f"{len(queued)} record(s) that do not exist have meter events")
    return found


def _stripe_against_outbox(books: Books) -> list[str]:
    found: list[str] = []
    counting: defaultdict[str, list[Row]] = defaultdict(list)
    for entry in books.accepted:
        if entry["effective"]:
            counting[entry["identifier"]].append(entry)
    for event in books.outbox:
        identifier = meter_identifier(event["customer_id"], event["request_id"], event["meter"])
        facts = {
            "event_name": event["meter"],
            "value": str(event["value"]),
            "customer": books.customers.get(event["customer_id"]),
            "timestamp": int(event["occurred_at"].timestamp()),
        }
        entries = counting.pop(identifier, [])
        if len(entries) != 1:
            found.append(f"{_key(event)}: {event['meter']} counts {len(entries)} times at Stripe")
        elif told := {name for name, value in facts.items() if entries[0][name] != value}:
            found.append(f"{_key(event)}: {event['meter']} has another {sorted(told)} at Stripe")
    for identifier in counting:
        found.append(f"Stripe counts {identifier}, which the ledger never queued")
    return found


def _totals(books: Books) -> list[str]:
    ledger, stripe = charged(books), told(books)
    served = {f"{kind} tokens": count for kind, count in served_and_billed(books).items()}
    return [
        f"in total {ledger[name]} {name} in the ledger, {stripe[name]} at Stripe"
        + (f", {served[name]} at Claude" if name in served else "")
        for name in ledger
        if not ledger[name] == stripe[name] == served.get(name, ledger[name])
    ]


def served_and_billed(books: Books) -> dict[str, int]:
    """Return Claude's sums per token kind over the calls that became bills."""
    billed = {record["message_id"] for record in books.records}
    calls = [call for call in books.calls if call["message_id"] in billed]
    return {kind: sum(call["billable"][kind] for call in calls) for kind in TOKEN_KINDS}


def charged(books: Books) -> dict[str, int]:
    """Return the ledger's sums per token kind, and the money in nano-USD."""
    tokens = {
        f"{kind} tokens": sum(record[f"{kind}_tokens"] for record in books.records)
        for kind in TOKEN_KINDS
    }
    return {**tokens, "nano-USD": sum(record["charge_nano_usd"] or 0 for record in books.records)}


def told(books: Books) -> dict[str, int]:
    """Return Stripe's sums over what counts, under the names that `charged` uses."""
    sums = Counter[str]()
    for entry in books.accepted:
        if entry["effective"]:
            sums[entry["event_name"]] += int(entry["value"])
    tokens = {f"{kind} tokens": sums[token_meter(kind)] for kind in TOKEN_KINDS}
    return {**tokens, "nano-USD": sums[CHARGE_METER]}
