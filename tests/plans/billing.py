"""Periods and usage to settle, made from round figures."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tallystick.money import from_nano_usd, to_nano_usd
from tallystick.plans import PlanTerms
from tallystick.plans.billed import Billed, Booked, Sold
from tallystick.plans.settlement import Following, PeriodTerms, Span
from tallystick.plans.statement import SectionName
from tallystick.pricing import TokenKind

START = datetime(2026, 11, 1, tzinfo=UTC)
END = datetime(2026, 12, 1, tzinfo=UTC)
"""A period of 30 days."""
DAY = timedelta(days=1)
SONNET = "claude-sonnet-5-5"
UNITS = {
    TokenKind.INPUT: Decimal("0.000002"),
    TokenKind.OUTPUT: Decimal("0.00001"),
    TokenKind.CACHE_WRITE_5M: Decimal("0.0000025"),
    TokenKind.CACHE_WRITE_1H: Decimal("0.000004"),
    TokenKind.CACHE_READ: Decimal("0.0000001"),
    TokenKind.WEB_SEARCH: Decimal("0.01"),
}
"""Sonnet 5.5 in November 2026."""


def plan(model: str = "pass-through", **terms: Any) -> PlanTerms:
    return PlanTerms.read({"model": model, **terms})


def hybrid(fee: str = "30", **terms: Any) -> PlanTerms:
    return plan("hybrid", base_fee_usd=fee, **terms)


def volume(*brackets: tuple[str | None, str], mode: str = "volume") -> dict[str, Any]:
    return {
        "mode": mode,
        "brackets": [{"up_to_usd": up_to, "factor": factor} for up_to, factor in brackets],
    }


def period(
    *in_force: PlanTerms | tuple[int, PlanTerms],
    end: datetime = END,
    following: PlanTerms | None = None,
    collected: str | None = None,
) -> PeriodTerms:
    """Return the terms of a period: one plan, or several with the day each begins on, from 0.

    Args:
        in_force: plans, named A, B, ... in their order.
        end: before the whole period's end where the account ends.
        following: the next period's plan, named Z.
        collected: the base fee that was collected in advance; that of the first plan if None.
    """
    days = [each if isinstance(each, tuple) else (0, each) for each in in_force]
    starts = [START + day * DAY for day, _ in days]
    fee = Decimal(collected) if collected is not None else days[0][1].base_fee_usd
    return PeriodTerms(
        start=START,
        end=end,
        whole_end=END,
        time_zone="UTC",
        spans=tuple(
            Span("ABCDEFGH"[number], start, until, terms)
            for number, (start, until, (_, terms)) in enumerate(
                zip(starts, [*starts[1:], end], days, strict=True)
            )
        ),
        following=Following("Z", END, END + 31 * DAY, "UTC", following) if following else None,
        fee_nano_usd=to_nano_usd(fee),
    )


def sold(
    terms: PlanTerms, kind: str, quantity: int, section: SectionName = "usage", **changes: Any
) -> Sold:
    token = TokenKind(kind)
    given: dict[str, Any] = {
        "section": section,
        "terms": terms,
        "model": SONNET,
        "kind": token,
        "unit_usd": UNITS[token],
        "batch": False,
        "first_at": START,
        "quantity": quantity,
    }
    return Sold(**{**given, **changes})


def billed(*lines: Sold, roundings: int = 0, withdrawn: str = "0", corrected: str = "0") -> Billed:
    """Return the period that has these lines, each a record's; `roundings` are added, in nano.

    `corrected` is what earlier periods' meters got wrong.
    """
    booked = [
        Booked(each.section, each.terms, 1, each.cost_usd, to_nano_usd(each.charge_usd))
        for each in lines
    ]
    if roundings:
        first = booked[0]
        nano = first.charge_nano_usd + roundings
        booked[0] = Booked(first.section, first.terms, 9, first.cost_usd, nano)
    return Billed(
        tuple(lines),
        tuple(booked),
        withdrawn_nano_usd=to_nano_usd(Decimal(withdrawn)),
        corrections_nano_usd=to_nano_usd(Decimal(corrected)),
    )


def of(charge_usd: str, terms: PlanTerms, section: SectionName = "usage") -> Sold:
    """Return usage of a charge, at cost: one token of that price."""
    return sold(terms, "input", 1, section, unit_usd=Decimal(charge_usd))


def usd(nano: int) -> Decimal:
    return from_nano_usd(nano)
