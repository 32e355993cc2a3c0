"""The layout of a statement: heading, sentences and tables, for every format to draw.

The order is that of a reader: what is to be paid and why, then what was used, then what it means in
allowance, balance and savings, and last, in the operator's copy only, cost and margin. Every table
adds up by itself, in exact amounts (volume prices that have changed are averaged instead); cents
stand only where something is collected.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from zoneinfo import ZoneInfo

from tallystick.money import EXACT, total
from tallystick.plans.fees import FeeTerms
from tallystick.plans.statement import (
    Collector,
    OperatorCopy,
    SectionName,
    Statement,
    TierPart,
    TierUse,
)
from tallystick.pricing.tokens import TokenKind
from tallystick.statements.grid import Cell, Grid, exact, without_empty_columns

SECTIONS: dict[SectionName, str] = {
    "usage": "Usage",
    "late_usage": "Usage of earlier periods, recorded later",
    "adjustments": "Corrections of earlier usage",
}
COLLECTORS: dict[Collector, str] = {
    "metered": "metered price",
    "subscription": "base price",
    "new_subscription": "invoice of the new subscription",
    "item": "invoice item",
}
"""The kind of invoice line. What the wallet has paid is on none."""
PURPOSES = {"top_up": "credit"}
"""What an invoice is for that does not collect the statement itself."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """A whole statement, laid out."""

    title: str
    heading: tuple[tuple[str, str], ...]
    sentences: tuple[str, ...]
    grids: tuple[Grid, ...]


@dataclass(frozen=True, slots=True)
class InvoiceSeen:
    """An invoice that belongs to the statement, as Stripe showed it last. Amounts are in cents.

    `purpose` is `period` or `opening` for one that collects the statement, `top_up` for credit that
    was bought in the period.
    """

    invoice_id: str
    purpose: str
    status: str
    currency: str
    total_cents: int
    tax_cents: int
    paid_cents: int
    due_at: datetime | None = None
    paid_at: datetime | None = None


def lay_out(
    statement: Statement, invoices: Sequence[InvoiceSeen] = (), fees: FeeTerms | None = None
) -> Sheet:
    """Lay a statement out with the invoices that belong to it.

    The operator's part is there if the statement has it (`Statement.for_customer` takes it out);
    `fees` then say what being paid costs.
    """
    grids = [
        *_collected(statement),
        *_invoices(statement, invoices),
        *_used(statement),
        *_left_to_pay(statement),
        *_tokens(statement),
        *_tiers(statement),
        *_wallet(statement),
        *_savings(statement),
    ]
    if statement.operator is not None:
        grids += _operator(statement.operator, invoices, fees)
    return Sheet(
        title=f"Statement {statement.ordinal} of {statement.customer_name}",
        heading=tuple(_heading(statement)),
        sentences=statement.summary,
        grids=tuple(map(without_empty_columns, grids)),
    )


def processing_fees(invoices: Iterable[InvoiceSeen], fees: FeeTerms) -> Decimal:
    """Return what it cost to be paid what was paid on these invoices, exactly."""
    return total(fees.fee(each.paid_cents) for each in invoices)


def in_dollars(cents: int) -> Decimal:
    """Return cents as dollars."""
    return Decimal(cents).scaleb(-2)


def instant(statement: Statement, at: datetime) -> str:
    """Write an instant in the time zone that the statement's period is counted in."""
    return at.astimezone(ZoneInfo(statement.time_zone)).strftime("%Y-%m-%d %H:%M %Z")


def _heading(statement: Statement) -> Iterator[tuple[str, str]]:
    start, end = (instant(statement, at) for at in (statement.period_start, statement.period_end))
    due = in_dollars(statement.due_cents)
    if statement.operator is not None:
        yield "copy", "the operator's, with cost and margin"
    yield "customer", statement.customer_id
    # The statement 0 opens an account: its period has no length.
    yield "period", f"{start} to {end}" if statement.ordinal else f"opening on {start}"
    yield "plan", statement.plan
    yield "given back" if due < 0 else "to pay", f"${exact(abs(due))}"


# --- What is to be paid ---------------------------------------------------------------------------
def _collected(statement: Statement) -> Iterator[Grid]:
    rows: list[tuple[Cell, ...]] = [
        (
            line.description,
            COLLECTORS[line.collected_by],
            line.amount_usd,
            in_dollars(line.amount_cents),
        )
        for line in statement.lines
        if line.collected_by != "wallet"
    ]
    if not rows:
        return
    if statement.remainder_usd:
        rows.append(("rounding to cents", "", -statement.remainder_usd, ""))
    due = in_dollars(statement.due_cents)
    yield Grid(
        "What is collected",
        ("line", "as", "$", "due $"),
        tuple(rows),
        ("due", "", due, due),
    )


def _invoices(statement: Statement, invoices: Sequence[InvoiceSeen]) -> Iterator[Grid]:
    if invoices:
        yield Grid(
            "Invoices, as Stripe shows them",
            ("invoice", "for", "status", "currency", "total", "tax in it", "paid"),
            tuple(
                (
                    each.invoice_id,
                    PURPOSES.get(each.purpose, ""),
                    _status(statement, each),
                    each.currency.upper(),
                    in_dollars(each.total_cents),
                    in_dollars(each.tax_cents) if each.tax_cents else "",
                    in_dollars(each.paid_cents) if each.paid_cents else "",
                )
                for each in invoices
            ),
        )


def _status(statement: Statement, invoice: InvoiceSeen) -> str:
    if invoice.status == "paid" and invoice.paid_at is not None:
        return f"paid {instant(statement, invoice.paid_at)}"
    if invoice.status == "open" and invoice.due_at is not None:
        return f"open, due {instant(statement, invoice.due_at)}"
    return invoice.status


# --- What was used, and what it means -------------------------------------------------------------
def _used(statement: Statement) -> Iterator[Grid]:
    for name, section in statement.sections.items():
        rows: list[tuple[Cell, ...]] = [
            # Only a price may have been corrected.
            (line.model, _kind(line.kind), line.quantity or "", line.charge_usd)
            for line in section.lines
        ]
        if section.rounding_usd:
            rows.append(("rounding of each request to nano-USD", "", "", section.rounding_usd))
        one = "correction" if name == "adjustments" else "request"
        count = f"{section.records:,} {one}{'' if section.records == 1 else 's'}"
        yield Grid(
            SECTIONS[name],
            ("model", "kind", "quantity", "$"),
            tuple(rows),
            (count, "", "", section.charge_usd),
        )


def _left_to_pay(statement: Statement) -> Iterator[Grid]:
    """Yield how what was charged becomes what is to be paid for it, where that is less."""
    credit = total(line.amount_usd for line in statement.lines if line.kind == "credits")
    allowance = statement.allowance
    if not credit and allowance is None:
        return
    rows: list[tuple[str, Decimal]] = [
        (SECTIONS[name], section.charge_usd) for name, section in statement.sections.items()
    ]
    if credit:
        rows.append(("paid from credit", -credit))
    if allowance is not None and allowance.tokens:
        rows.append(("included tokens", -total(each.covered_usd for each in allowance.tokens)))
    if allowance is not None and allowance.included_usd is not None:
        used = EXACT.subtract(allowance.included_usd, allowance.left_usd or Decimal(0))
        rows.append((f"included usage of ${exact(allowance.included_usd)}", -used))
    left = total(amount for _, amount in rows)
    yield Grid(
        "What of the usage is left to pay", ("line", "$"), tuple(rows), ("left to pay", left)
    )


def _tokens(statement: Statement) -> Iterator[Grid]:
    included = statement.allowance.tokens if statement.allowance else ()
    if included:
        yield Grid(
            "Tokens that the plan includes",
            ("kind", "included", "used", "left", "covered $"),
            tuple(
                (_kind(each.kind), each.included, each.used, each.left, each.covered_usd)
                for each in included
            ),
        )


def _tiers(statement: Statement) -> Iterator[Grid]:
    use = statement.tiers
    if use is None or not use.before_usd:
        return
    several = len(use.segments) > 1
    rows = [_bracket(each, part, several) for each in use.segments for part in each.parts]
    rounding = EXACT.subtract(use.after_usd, total(row[-1] for row in rows))
    if rounding and not several:
        rows.append(("", "", "rounding to nano-USD", "", "", rounding))
    yield Grid(
        "Volume prices, averaged by time" if several else f"Volume prices ({use.segments[0].mode})",
        ("terms", "in force", "bracket", "factor", "of $", "$"),
        tuple(rows),
        (
            *(("average", "", "") if several else ("", "", "in all")),
            "",
            use.before_usd,
            use.after_usd,
        ),
    )


def _bracket(
    segment: TierUse, part: TierPart, several: bool
) -> tuple[Cell, Cell, Cell, Cell, Cell, Decimal]:
    mode = "" if segment.mode == "none" else f" ({segment.mode})"
    return (
        f"{segment.plan}{mode}" if several else "",
        str(timedelta(seconds=segment.seconds)) if several else "",
        "without limit" if part.up_to_usd is None else f"up to ${exact(part.up_to_usd)}",
        part.factor,
        part.charge_usd,
        part.amount_usd,
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
    if some := tuple(row for row in rows if row[1]):
        yield Grid("Savings in these charges", ("through", "$"), some)


# --- The operator's copy --------------------------------------------------------------------------
def _operator(
    own: OperatorCopy, invoices: Sequence[InvoiceSeen], fees: FeeTerms | None
) -> Iterator[Grid]:
    rows = [("earned", own.earned_usd), ("Claude's price for the answers", -own.cost_usd)]
    lost = own.lost
    if lost.failed or lost.unknown:
        rows.append(
            (
                f"calls without an answer ({lost.failed} failed, {lost.unknown} unknown), "
                "estimated",
                -lost.estimated_cost_usd,
            )
        )
    if lost.settled:
        rows.append((f"calls without an answer ({lost.settled} settled)", -lost.settled_cost_usd))
    margin = own.margin_usd
    if fees is not None and (paying := processing_fees(invoices, fees)):
        rows.append(("processing fees on what was paid", -paying))
        margin = EXACT.subtract(margin, paying)
    if any(amount for _, amount in rows):
        yield Grid(
            "Margin of this period's service", ("line", "$"), tuple(rows), ("margin", margin)
        )
    if own.costs:
        yield Grid(
            "Claude's price",
            ("section", "model", "kind", "$"),
            tuple(
                (SECTIONS[each.section], each.model, _kind(each.kind), each.cost_usd)
                for each in own.costs
            ),
            ("in all", "", "", own.cost_usd),
        )


# --- Words ----------------------------------------------------------------------------------------
def _kind(kind: TokenKind) -> str:
    return "web searches" if kind == TokenKind.WEB_SEARCH else f"{_words(kind)} tokens"


def _words(name: str) -> str:
    return name.replace("_", " ")
