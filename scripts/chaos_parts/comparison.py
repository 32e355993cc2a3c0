"""The tally: the three records laid side by side, and each disagreement by name.

Nothing here trusts a sum. Every call in Claude's journal must be some attempt, every answered
attempt a call, every record the one record of its request with the tokens of its call, every meter
event of a record exactly one event that counts at Stripe; only then are the totals compared too,
per token kind and in money. A call that nobody can name, a token that was counted twice and an
event that is missing each show up as a finding of their own. A record without a price has no meter
events until it gets one, and stays out of the sums.
"""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from itertools import zip_longest

from tallystick.metering import CHARGE_METER, TOKEN_KINDS, meter_identifier, token_meter

from .books import Books, Key, Row, key_of, named, owners

Totals = Mapping[str, Mapping[str, int]]
"""A sum by what is summed up, and by whose record says so: `claude`, `ledger`, `stripe`."""
NANO_USD = "nano-USD"
"""What the charge is summed up in, as Stripe counts it."""
AT = {"claude": "at Claude", "ledger": "in the ledger", "stripe": "at Stripe"}


class Kind(StrEnum):
    """What a disagreement comes to."""

    UNACCOUNTED = "a call without a trace"
    UNBILLED = "an answer without a bill"
    BILLED_TWICE = "billed twice"
    HALF_BILLED = "half billed"
    METERED_TWICE = "metered twice"
    WRONG = "wrong figures"


@dataclass(frozen=True, slots=True)
class Finding:
    """One disagreement: of which kind, of which request where one can be named, and in words.

    `count` is how many calls, where it is of calls.
    """

    kind: Kind
    key: Key | None
    told: str
    count: int = 1

    def __str__(self) -> str:
        return f"{named(self.key)}: {self.told}" if self.key else self.told


class TallyError(AssertionError):
    """The three records do not tally; the message has a line for each difference."""


def must_tally(books: Books) -> None:
    """Raise TallyError unless the three records agree in every row and in every sum."""
    found = differences(books)
    if found:
        raise TallyError("\n".join(["the records do not tally:", *found]))


def differences(books: Books) -> list[str]:
    """Return every disagreement, in words."""
    return [str(each) for each in findings(books)]


def findings(books: Books) -> list[Finding]:
    """Return every disagreement."""
    return [
        *_calls_against_attempts(books),
        *_lost_calls_against_attempts(books),
        *_records_against_calls(books),
        *_outbox_against_records(books),
        *_stripe_against_outbox(books),
        *_totals(books),
    ]


def _calls_against_attempts(books: Books) -> Iterator[Finding]:
    served = Counter(call["message_id"] for call in books.calls)
    answered = {a["message_id"]: a for a in books.attempts if a["outcome"] == "succeeded"}
    for message_id, attempt in answered.items():
        if served[message_id] != 1:
            told = f"Claude served its reply {message_id} {served[message_id]} times"
            yield Finding(Kind.WRONG, key_of(attempt), told)
    for attempt in books.attempts:
        if attempt["outcome"] == "started":
            told = f"attempt {attempt['number']} has no outcome"
            yield Finding(Kind.WRONG, key_of(attempt), told)


def _lost_calls_against_attempts(books: Books) -> Iterator[Finding]:
    """Hold each call whose reply was lost against the attempts whose outcome is unknown."""
    answered = {a["message_id"] for a in books.attempts if a["outcome"] == "succeeded"}
    unknown = Counter(key_of(a) for a in books.attempts if a["outcome"] == "indeterminate")
    of_body = owners(books)
    lost = Counter(c["body_sha256"] for c in books.calls if c["message_id"] not in answered)
    nameless = [count for body, count in lost.items() if body not in of_body]
    owned = Counter[Key]()
    for body, count in lost.items():
        if body in of_body:
            owned[of_body[body]] += count
    for key, count in owned.items():
        if count > unknown[key]:
            told = (
                f"Claude served {count} call(s) whose reply was lost, "
                f"and {unknown[key]} attempt(s) are indeterminate"
            )
            yield Finding(Kind.UNACCOUNTED, key, told, count - unknown[key])
    # Whose body it is that was never answered, nobody knows. There must be a way to share them out
    # among the requests without an answer, and if any does, giving most to most does.
    named = set(of_body.values())
    open_ended = [count for key, count in unknown.items() if key not in named]
    pairs = zip_longest(
        sorted(nameless, reverse=True), sorted(open_ended, reverse=True), fillvalue=0
    )
    if stray := sum(max(0, calls - attempts) for calls, attempts in pairs):
        told = f"Claude served {stray} call(s) for a request that was never answered"
        yield Finding(Kind.UNACCOUNTED, None, told, stray)


def _records_against_calls(books: Books) -> Iterator[Finding]:
    records = Counter(key_of(record) for record in books.records)
    answered = {key_of(a) for a in books.attempts if a["outcome"] == "succeeded"}
    for key in answered | records.keys():
        if records[key] != 1:
            kind = Kind.BILLED_TWICE if records[key] else Kind.UNBILLED
            yield Finding(kind, key, f"{records[key]} usage records")
    calls = {call["message_id"]: call for call in books.calls}
    attempts = {attempt["attempt_id"]: attempt for attempt in books.attempts}
    for record in books.records:
        key = key_of(record)
        attempt = attempts.get(record["attempt_id"])
        call = calls.get(record["message_id"])
        if attempt is None or attempt["message_id"] != record["message_id"]:
            yield Finding(Kind.WRONG, key, "the record does not bill its attempt's reply")
        if call is None:
            yield Finding(Kind.WRONG, key, "the record bills a reply that Claude did not serve")
            continue
        for kind in TOKEN_KINDS:
            billed, served = record[f"{kind}_tokens"], call["billable"][kind]
            if billed != served:
                told = f"{billed} {kind} tokens billed, {served} served"
                yield Finding(Kind.WRONG, key, told)


def _outbox_against_records(books: Books) -> Iterator[Finding]:
    queued: defaultdict[int, list[tuple[str, int]]] = defaultdict(list)
    for event in books.outbox:
        queued[event["usage_record_id"]].append((event["meter"], event["value"]))
        if event["delivered_at"] is None:
            told = f"{event['meter']} is not delivered"
            yield Finding(Kind.HALF_BILLED, key_of(event), told)
    for record in books.records:
        due = [
            (CHARGE_METER, record["charge_nano_usd"]),
            *((token_meter(kind), record[f"{kind}_tokens"]) for kind in TOKEN_KINDS),
        ]
        priced = record["charge_nano_usd"] is not None
        wanted = sorted((meter, value) for meter, value in due if priced and value)
        if sorted(queued.pop(record["usage_record_id"], [])) != wanted:
            told = "its meter events are not what the record says"
            yield Finding(Kind.HALF_BILLED, key_of(record), told)
    if queued:
        told = f"{len(queued)} record(s) that do not exist have meter events"
        yield Finding(Kind.HALF_BILLED, None, told)


def _stripe_against_outbox(books: Books) -> Iterator[Finding]:
    counting: defaultdict[str, list[Row]] = defaultdict(list)
    for entry in books.accepted:
        if entry["effective"]:
            counting[entry["identifier"]].append(entry)
    for event in books.outbox:
        key, meter = key_of(event), event["meter"]
        facts = {
            "event_name": meter,
            "value": str(event["value"]),
            "customer": books.customers.get(event["customer_id"]),
            "timestamp": int(event["occurred_at"].timestamp()),
        }
        entries = counting.pop(meter_identifier(*key, meter), [])
        if len(entries) != 1:
            kind = Kind.METERED_TWICE if entries else Kind.HALF_BILLED
            yield Finding(kind, key, f"{meter} counts {len(entries)} times at Stripe")
        elif other := {name for name, value in facts.items() if entries[0][name] != value}:
            yield Finding(Kind.WRONG, key, f"{meter} has another {sorted(other)} at Stripe")
    for identifier in counting:
        told = f"Stripe counts {identifier}, which the ledger never queued"
        yield Finding(Kind.HALF_BILLED, None, told)


def _totals(books: Books) -> Iterator[Finding]:
    for name, sums in totals(books).items():
        if len(set(sums.values())) > 1:
            told = ", ".join(f"{sum_} {AT[side]}" for side, sum_ in sums.items())
            yield Finding(Kind.WRONG, None, f"in total {name}: {told}")


def totals(books: Books) -> Totals:
    """Return what the records come to: tokens by kind, and the charge in nano-USD.

    Claude's are those of the calls that became bills, the ledger's those of records with a price.
    """
    served, charged, told = served_and_billed(books), _charged(books), _told(books)
    return {
        **{
            f"{kind} tokens": {
                "claude": served[kind],
                "ledger": charged[kind],
                "stripe": told[token_meter(kind)],
            }
            for kind in TOKEN_KINDS
        },
        NANO_USD: {"ledger": charged[CHARGE_METER], "stripe": told[CHARGE_METER]},
    }


def _priced(books: Books) -> list[Row]:
    return [record for record in books.records if record["charge_nano_usd"] is not None]


def served_and_billed(books: Books) -> dict[str, int]:
    """Return Claude's sums per token kind over the calls that became bills."""
    billed = {record["message_id"] for record in _priced(books)}
    calls = [call for call in books.calls if call["message_id"] in billed]
    return {kind: sum(call["billable"][kind] for call in calls) for kind in TOKEN_KINDS}


def _charged(books: Books) -> Counter[str]:
    sums = Counter[str]()
    for record in _priced(books):
        sums[CHARGE_METER] += record["charge_nano_usd"]
        for kind in TOKEN_KINDS:
            sums[kind] += record[f"{kind}_tokens"]
    return sums


def _told(books: Books) -> Counter[str]:
    """Return Stripe's sums by meter, over what counts."""
    sums = Counter[str]()
    for entry in books.accepted:
        if entry["effective"]:
            sums[entry["event_name"]] += int(entry["value"])
    return sums
