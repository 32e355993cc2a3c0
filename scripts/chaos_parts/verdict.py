"""What a drill came to: one count for each promise, and nothing that a sum could hide.

Each request is judged by itself, from what its caller has heard and what the three records say of
it. Only computes, so that a test can hand it records of its own.
"""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from .books import Books, Key, Row, as_acknowledged, believing_receipts, key_of, named
from .comparison import Finding, Kind, Totals, findings, totals
from .heard import Heard

PROMISES = (
    "pending", "lost", "billed_twice", "half_billed", "metered_twice", "unaccounted", "wrong",
)  # fmt: skip
"""The counts that are 0 where every promise was kept and nothing was left over."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The counts of one side."""

    asked: int
    answered: int
    refused: Mapping[str, int]
    """Told to the caller, by reason."""
    billed_once: int
    free: int
    """Answered, recorded, and not charged, as Claude does not (refusals)."""
    unpriced: int
    """Answered, recorded, and parked until somebody knows the price of what was served."""
    calls: int
    """Served by Claude, each at our cost."""
    paid_again: int
    """Calls beyond one for each request."""
    misplaced: int
    """Events that Stripe acknowledged and then lost, doubled or gave to others, as it was told to:
    reconciliation's to find, and believed as acknowledged in all other counts."""
    pending: int
    """Still under way, where somebody can see it."""
    lost: int
    """Answered to nobody and not pending; or answered without a bill, or billed to one who was
    told that it failed."""
    billed_twice: int
    half_billed: int
    """Requests with a bill that lacks events, or events that lack a bill."""
    metered_twice: int
    """Requests with an event that counts more than once."""
    unaccounted: int
    """Calls that no attempt tells of."""
    wrong: int
    """Other disagreements between the records: a token, an amount, a customer, a sum."""
    totals: Totals = field(default_factory=dict[str, Mapping[str, int]])
    """The records' sums, where there are records."""
    told: list[str] = field(default_factory=list[str])
    """What is wrong, in words."""

    @property
    def holds(self) -> bool:
        """Tell whether every promise was kept, and nothing was left over."""
        return not any(getattr(self, name) for name in PROMISES)

    def as_json(self) -> dict[str, Any]:
        """Return it as one object."""
        return {**asdict(self), "holds": self.holds}


def judge(books: Books, heard: Mapping[Key, Heard | None], pending: Collection[Key]) -> Verdict:
    """Judge Tallystick. `heard` has None for a caller who still waits."""
    believed, misplaced = believing_receipts(books)
    found = findings(believed)
    records: dict[Key, Row] = {key_of(record): record for record in books.records}
    answered = {key: each.message_id for key, each in heard.items() if each and each.message_id}
    refused = {key: each.refused for key, each in heard.items() if each and each.refused}
    lost = {
        **{
            key: _silence(heard[key])
            for key in heard.keys() - answered.keys() - refused.keys() - set(pending)
        },
        **dict.fromkeys(
            refused.keys() & records.keys(), "its caller was told that it failed, and it is billed"
        ),
        **{
            key: "its bill is not for the answer that its caller has"
            for key, message_id in answered.items()
            if records.get(key, {}).get("message_id") != message_id
        },
        **_of(found, Kind.UNBILLED),
    }
    wrong = [each for each in found if each.kind is Kind.WRONG]
    status = Counter(records[key]["status"] for key in answered.keys() & records.keys())
    twice = _of(found, Kind.BILLED_TWICE)
    return Verdict(
        asked=len(heard),
        answered=len(answered),
        refused=dict(Counter(refused.values()).most_common()),
        billed_once=status["priced"] - len(twice),
        free=status["not_billed"],
        unpriced=status["unpriced"],
        calls=len(books.calls),
        paid_again=_paid_again(books.calls),
        misplaced=misplaced,
        pending=len(pending),
        lost=len(lost),
        billed_twice=len(twice),
        half_billed=_requests(found, Kind.HALF_BILLED),
        metered_twice=_requests(found, Kind.METERED_TWICE),
        unaccounted=sum(each.count for each in found if each.kind is Kind.UNACCOUNTED),
        wrong=len(wrong),
        totals=totals(believed),
        told=[
            *(f"{named(key)}: still under way" for key in sorted(pending)),
            *(f"{named(key)}: {why}" for key, why in lost.items()),
            *map(str, found),
        ],
    )


def judge_naive(
    calls: list[Row], accepted: list[Row], heard: Mapping[Key, Heard | None], kinds: int
) -> Verdict:
    """Judge the baseline by the only records there are: the stand-ins' journals.

    Its bill of a request are its events at Stripe, one of each of so many `kinds`.
    """
    believed, misplaced = as_acknowledged(accepted, {})
    events: dict[str, Counter[str]] = {}
    for entry in believed:
        if entry["effective"]:
            counted = events.setdefault(entry["besides"]["request_id"], Counter())
            counted[entry["event_name"]] += 1
    answered = {key for key, each in heard.items() if each and each.message_id}
    refused = {key: each.refused for key, each in heard.items() if each and each.refused}
    of = {key: events.get(key[1], Counter[str]()) for key in heard}
    lost = {key for key in answered if not of[key]} | (heard.keys() - answered - refused.keys())
    half = {key for key in answered if 0 < len(of[key]) < kinds} | {
        key for key in refused if of[key]
    }
    twice = {key for key in answered if max(of[key].values(), default=0) > 1}
    once = answered - lost - half - twice
    return Verdict(
        asked=len(heard),
        answered=len(answered),
        refused=dict(Counter(refused.values()).most_common()),
        billed_once=len(once),
        free=0,
        unpriced=0,
        calls=len(calls),
        paid_again=_paid_again(calls),
        misplaced=misplaced,
        pending=0,
        lost=len(lost),
        billed_twice=len(twice),
        half_billed=len(half),
        metered_twice=sum(max(each.values(), default=0) > 1 for each in of.values()),
        unaccounted=_paid_again(calls),
        wrong=0,
    )


def _paid_again(calls: list[Row]) -> int:
    return len(calls) - len({call["body_sha256"] for call in calls})


def _silence(heard: Heard | None) -> str:
    return f"ended without a reason: {heard.told}" if heard else "its caller has heard nothing"


def _of(found: list[Finding], kind: Kind) -> dict[Key, str]:
    return {each.key: each.told for each in found if each.kind is kind and each.key}


def _requests(found: list[Finding], kind: Kind) -> int:
    """Count the requests with a finding of this kind; what is nobody's counts for itself."""
    mine = [each for each in found if each.kind is kind]
    return len(_of(mine, kind)) + sum(each.key is None for each in mine)
