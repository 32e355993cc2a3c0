"""The layout of a statement: headings, sentences and tables, for every format to draw.

The order is that of a reader: what is to be paid and why, then what was used, then what it means in
allowance, balance and savings, and last, in the operator's copy only, cost and margin. Exact
amounts stand in every line, cents only where something is collected.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from zoneinfo import ZoneInfo

from tallystick.money import plain, total
from tallystick.plans.fees import FeeTerms
from tallystick.plans.statement import OperatorCopy, SectionName, Statement

SECTIONS: dict[SectionName, str] = {
    "usage": "Usage",
    "late_usage": "Usage of earlier periods, recorded later",
    "adjustments": "Corrections of earlier usage",
}
COLLECTORS = {
    "metered": "Stripe, from meter events",
    "subscription": "Stripe, by the subscription",
    "new_subscription": "Stripe, by the next subscription",
    "item": "invoice item",
    "wallet": "paid from credit",
}

Cell = str | int | Decimal


@dataclass(frozen=True, slots=True)
class Grid:
    """A table with a heading of its own. Numbers stand to the right, `foot` under a line."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    foot: tuple[Cell, ...] | None = None


@dataclass(frozen=True, slots=True)
class Sheet:
    """A whole statement, laid out."""

    title: str
    heading: tuple[tuple[str, str], ...]
    sentences: tuple[str, ...]
    grids: tuple[Grid, ...]


@dataclass(frozen=True, slots=True)
class InvoiceSeen:
    """An invoice that collects the statement, as Stripe showed it last. Amounts are in cents."""

    invoice_id: str
    status: str
    total_cents: int
    tax_cents: int
    paid_cents: int
    currency: str
    due_at: datetime | None = None
    paid_at: datetime | None = None


def lay_out(
    statement: Statement, invoices: Sequence[InvoiceSeen] = (), fees: FeeTerms | None = None
) -> Sheet:
    """Lay a statement out with the invoices that collect it.

    The operator's part is there if the statement has it (`Statement.for_customer` takes it out);
    `fees` then say what being paid costs.
    """
    grids = [
        _collected(statement),
        *_invoices(statement, invoices),
        *_used(statement),
        *_allowance(statement),
        *_tiers(statement),
        *_wallet(statement),
        *_savings(statement),
    ]
    if statement.operator is not None:
        grids += _operator(statement.operator, invoices, fees)
    return Sheet(
        title=f"Statement {statement.ordinal} of {statement.customer_name}",
        heading=(
            ("customer", statement.customer_id),
            ("period", f"{_at(statement, statement.period_start)} to "
                       f"{_at(statement, statement.period_end)}"),
            ("plan", statement.plan),
            ("to pay", f"${cents(statement.due_cents)}"),
        ),
        sentences=statement.summary,
        grids=tuple(grids),
    )  # fmt: skip


def cents(amount: int) -> str:
    """Write cents as dollars, always with two decimals."""
    return f"{Decimal(amount).scaleb(-2):,.2f}"


def _at(statement: Statement, instant: datetime) -> str:
    return instant.astimezone(ZoneInfo(statement.time_zone)).strftime("%Y-%m-%d %H:%M %Z")


def _collected(statement: Statement) -> Grid:
    rows = [
        (line.description, COLLECTORS[line.collected_by], line.amount_usd, cents(line.amount_cents))
        for line in statement.lines
    ]
    if statement.remainder_usd:
        rows.append(("left out by rounding to cents", "", -statement.remainder_usd, ""))
    return Grid(
        "What is collected",
        ("line", "collected by", "exact $", "$"),
        tuple(rows),
        (
            "due",
            "",
            _shown(statement.due_usd - statement.remainder_usd),
            cents(statement.due_cents),
        ),
    )


def _invoices(statement: Statement, invoices: Sequence[InvoiceSeen]) -> Iterator[Grid]:
    if not invoices:
        return
    yield Grid(
        "Invoices, as Stripe shows them",
        ("invoice", "status", "currency", "total", "of it tax", "paid", "due", "paid at"),
        tuple(
            (
                each.invoice_id,
                each.status,
                each.currency.upper(),
                cents(each.total_cents),
                cents(each.tax_cents),
                cents(each.paid_cents),
                _at(statement, each.due_at) if each.due_at else "",
                _at(statement, each.paid_at) if each.paid_at else "",
            )
            for each in invoices
        ),
    )


def _used(statement: Statement) -> Iterator[Grid]:
    for name, section in statement.sections.items():
        rows: list[tuple[Cell, ...]] = [
            (line.model, _words(line.kind), line.quantity, line.charge_usd)
            for line in section.lines
        ]
        if section.rounding_usd:
            rows.append(("rounding of each request to nano-USD", "", "", section.rounding_usd))
        count = f"{section.records:,} request{'' if section.records == 1 else 's'}"
        yield Grid(
            SECTIONS[name],
            ("model", "kind", "tokens", "charge $"),
            tuple(rows),
            (count, "", "", section.charge_usd),
        )


def _allowance(statement: Statement) -> Iterator[Grid]:
    use = statement.allowance
    if use is None:
        return
    rows: list[tuple[Cell, ...]] = []
    if use.included_usd is not None and use.left_usd is not None:
        rows.append(("usage", f"${plain(use.included_usd)}", f"${plain(use.left_usd)}", ""))
    rows += [
        (
            f"{_words(each.kind)} tokens",
            f"{each.included:,}",
            f"{each.left:,}",
            each.covered_usd,
        )
        for each in use.tokens
    ]
    yield Grid(
        "What the plan includes",
        ("of", "included", "left", "let off $"),
        tuple(rows),
        ("let off in all, and beyond it", "", _shown(use.overage_usd), use.covered_usd),
    )


def _tiers(statement: Statement) -> Iterator[Grid]:
    for segment in statement.tiers.segments if statement.tiers else ():
        if segment.mode == "none":
            continue
        yield Grid(
            f"Volume prices ({segment.mode}, plan {segment.plan})",
            ("up to $", "factor", "charge $", "comes to $"),
            tuple(
                (
                    "beyond" if part.up_to_usd is None else part.up_to_usd,
                    part.factor,
                    part.charge_usd,
                    part.amount_usd,
                )
                for part in segment.parts
            ),
        )


def _wallet(statement: Statement) -> Iterator[Grid]:
    use = statement.wallet
    if use is None:
        return
    yield Grid(
        "Balance",
        ("movement", "credit", "times", "$"),
        (
            ("at the beginning", "", "", use.opening_usd),
            *(
                (_words(each.kind), each.grant or "overdraft", each.count, each.amount_usd)
                for each in use.movements
            ),
        ),
        ("at the end", "", "", use.closing_usd),
    )


def _savings(statement: Statement) -> Iterator[Grid]:
    saved = statement.savings
    rows = (("prompt caching", saved.cache_usd), ("batch price", saved.batch_usd))
    if any(amount for _, amount in rows):
        yield Grid("Savings in these charges", ("through", "$"), rows)


def _operator(
    own: OperatorCopy, invoices: Sequence[InvoiceSeen], fees: FeeTerms | None
) -> Iterator[Grid]:
    paid = total(fees.fee(each.paid_cents) for each in invoices) if fees else Decimal(0)
    yield Grid(
        "Margin (operator's copy)",
        ("of this period's service", "$"),
        (
            ("earned", own.earned_usd),
            ("Claude's price for the answers", -own.cost_usd),
            (
                f"calls without an answer ({own.lost.failed} failed, {own.lost.unknown} unknown), "
                "estimated",
                -own.lost.estimated_cost_usd,
            ),
            ("processing fees on what was paid", -paid),
        ),
        ("margin", own.margin_usd - paid),
    )
    if own.costs:
        yield Grid(
            "Claude's price (operator's copy)",
            ("section", "model", "kind", "cost $"),
            tuple(
                (SECTIONS[each.section], each.model, _words(each.kind), each.cost_usd)
                for each in own.costs
            ),
            ("", "", "", own.cost_usd),
        )


def _words(name: str) -> str:
    return name.replace("_", " ")


def _shown(amount: Decimal) -> Decimal:
    return amount + 0  # no negative zero
