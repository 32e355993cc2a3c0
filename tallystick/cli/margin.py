"""`tallystick margin`: what we earn, by customer, model or day, beside Anthropic's own report."""

from dataclasses import asdict
from decimal import Decimal
from enum import StrEnum
from typing import Annotated, Any

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.instants import Span, read_span
from tallystick.cli.output import JsonFlag, note, print_json, print_rows
from tallystick.ledger.database import Transaction, snapshot
from tallystick.margin import Earnings, Margin, Reported, earnings
from tallystick.money import plain
from tallystick.plans.fees import FeeTerms
from tallystick.settings import get_settings


class By(StrEnum):
    """What each line is of."""

    CUSTOMER = "customer"
    MODEL = "model"
    DAY = "day"


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(margin)


def margin(
    start: Annotated[str, typer.Option("--from", help="The first instant or date, in UTC.")],
    end: Annotated[
        str, typer.Option("--to", help="The instant or date to stop before; now by default.")
    ] = "",
    by: Annotated[By, typer.Option(help="What each line is of.")] = By.CUSTOMER,
    as_json: bool = JsonFlag,
) -> None:
    """Show what usage was charged, what it cost, and what is left; those who lose money first.

    Costs are Claude's price for the answers, calls that brought none (estimated where no report has
    settled them), and fees for payments. Revenue is what usage was charged, corrections included;
    what a plan adds to it or takes off it (base fees, allowances, volume prices, free credit) is on
    `statement --operator`.
    """
    span, settings = read_span(start, end), get_settings()
    fees = FeeTerms(settings.fee_percent, settings.fee_fixed_usd)

    async def read(tx: Transaction) -> Earnings:
        await snapshot(tx)
        return await earnings(tx, *span, by.value, fees)

    earned = in_ledger(read)
    if as_json:
        print_json(_as_dict(span, by, earned))
        return
    _show(by, earned)


def _show(by: By, earned: Earnings) -> None:
    compares = bool(earned.reported_by)
    columns = (
        by.value, "requests", "revenue $", "answers $", "lost calls $", "estimated $", "fees $",
        "margin $", "%", "", *(("report $", "above ours $") if compares else ()),
    )  # fmt: skip
    print_rows(
        columns,
        [
            (*_cells(row), *(_beside(told) if compares else ()))
            for row, told in [
                *((row, earned.reported_by.get(row.of)) for row in earned.rows),
                (earned.total, earned.reported),
            ]
        ],
    )
    losing = [row for row in earned.rows if row.loses_money]
    if losing:
        lost = -sum((row.margin_usd for row in losing), Decimal(0))
        one = len(losing) == 1
        cost, bring = (
            (f"{by.value} costs", "it brings") if one else (f"{by.value}s cost", "they bring")
        )
        note(f"{len(losing):,} {cost} ${plain(lost)} more than {bring} in")
    if earned.total.unpriced:
        note(f"{earned.total.unpriced:,} requests without a price are left out; see `stuck`")
    _say_reported(earned)


def _cells(row: Margin) -> tuple[Any, ...]:
    return (
        row.of or "(none)",
        row.requests,
        row.revenue_usd,
        row.cost_usd,
        row.lost_usd,
        row.lost_estimated_usd,
        row.fees_usd,
        row.margin_usd,
        row.margin_percent,
        "LOSS" if row.loses_money else "",
    )


def _beside(told: Reported | None) -> tuple[Decimal | None, Decimal | None]:
    return (told.amount_usd, told.difference_usd) if told else (None, None)


def _say_reported(earned: Earnings) -> None:
    told = earned.reported
    if told is None:
        note("Anthropic's cost report was not read for these days; `tallystick reconcile` does")
        return
    difference = told.difference_usd
    beside = f"${plain(abs(difference))} {'above' if difference > 0 else 'below'} what we know of"
    note(
        f"Anthropic's cost report for {earned.reported_days} of {earned.days} days, after "
        f"discounts: ${plain(told.amount_usd)}, {beside if difference else 'as we know it'}"
    )


def _as_dict(span: Span, by: By, earned: Earnings) -> dict[str, Any]:
    return {
        "from": span.start,
        "to": span.end,
        "by": by.value,
        "rows": [_line(row, earned.reported_by.get(row.of)) for row in earned.rows],
        "total": _line(earned.total, earned.reported),
        "days": earned.days,
        "reported_days": earned.reported_days,
    }


def _line(row: Margin, told: Reported | None) -> dict[str, Any]:
    return {
        **asdict(row),
        "margin_usd": row.margin_usd,
        "margin_percent": row.margin_percent,
        "loses_money": row.loses_money,
        "cost_report": told and {**asdict(told), "difference_usd": told.difference_usd},
    }
