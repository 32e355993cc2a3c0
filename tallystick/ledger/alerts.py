"""Alerts: a share of an allowance, a cap or a balance was passed. Told once a period each.

The row is the memory and the notice the news, both in one transaction: whoever looks a second time
finds the row and tells nobody.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, NamedTuple

from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from tallystick.ledger.account_tables import Alert
from tallystick.ledger.database import Transaction
from tallystick.ledger.notices import raise_notice
from tallystick.money import from_nano_usd, plain
from tallystick.pricing import TokenKind

Subject = Literal["allowance", "cap", "balance"]


class AlertKey(NamedTuple):
    """What is told once: so many percent of a customer's limit, in the period that began then."""

    customer_id: str
    period_start: datetime
    subject: Subject
    percent: int


@dataclass(frozen=True, slots=True)
class Passed:
    """A share that was passed. `used` and `limit` are nano-USD, or tokens of the kind `unit`."""

    key: AlertKey
    used: int
    limit: int
    unit: str = "USD"


_REMEMBER = (
    insert(Alert)
    .on_conflict_do_nothing()
    .returning(
        col(Alert.customer_id), col(Alert.period_start), col(Alert.subject), col(Alert.percent)
    )
)


async def tell(tx: Transaction, passed: Collection[Passed], at: datetime) -> set[str]:
    """Tell customers what they have passed; returns those to whom it was news."""
    if not passed:
        return set()
    rows = [{**each.key._asdict(), "passed_at": at} for each in passed]
    first_told = {tuple(row) for row in await tx.execute(_REMEMBER, rows)}
    news = [each for each in passed if each.key in first_told]
    for each in news:
        await raise_notice(
            tx,
            each.key.customer_id,
            key=f"alert:{each.key.subject}:{each.key.percent}:{each.key.period_start.isoformat()}",
            kind="usage_alert",
            audience="customer",
            message=_words(each),
            facts={
                "subject": each.key.subject,
                "percent": each.key.percent,
                "period_start": each.key.period_start.isoformat(),
                "used": _fact(each, each.used),
                "limit": _fact(each, each.limit),
                "unit": each.unit,
            },
            at=at,
        )
    return {each.key.customer_id for each in news}


_WHAT: dict[Subject, str] = {
    "allowance": "the usage that the plan includes in this period",
    "cap": "the spend cap of this period",
    "balance": "the credit of this period",
}


def _words(passed: Passed) -> str:
    match passed.unit:
        case "USD":
            how_much = f"${_fact(passed, passed.used)} of ${_fact(passed, passed.limit)}"
        case TokenKind.WEB_SEARCH:
            how_much = f"{passed.used:,} of {passed.limit:,} web searches"
        case kind:
            how_much = f"{passed.used:,} of {passed.limit:,} {kind.replace('_', ' ')} tokens"
    return f"{passed.key.percent} % of {_WHAT[passed.key.subject]} is used up: {how_much}."


def _fact(passed: Passed, value: int) -> str | int:
    return plain(from_nano_usd(value)) if passed.unit == "USD" else value
