"""What collects a statement: which items of ours an invoice needs, and whether it says the same.

Stripe's own lines (usage by the meter, the base fee) come with its invoice, the others are items of
ours, one a statement line. Where Stripe's lines cannot be what the statement says, because its
invoice was final before the books were closed, or its fee was that of a plan just left, an item of
ours makes up the difference. On a draft that is still ours the metered line must be right by
itself: it was compared to the unit before, and anything else is a fault that no item may cover.

Pure functions, so that the step which creates items and the step which checks the result cannot
have two opinions.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from activities.stripe_invoices import MARK_LINE, MARK_STATEMENT, Line
from tallystick.ledger.account_tables import StatementLine
from tallystick.ledger.invoices import Collection
from tallystick.metering import CHARGE_METER

FEE_NOT_OWED = 0
"""Stands for the line of a fee that Stripe collects and the statement does not have."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An item of ours: which statement line it collects (or makes up for), and how much."""

    number: int
    amount_cents: int
    description: str


@dataclass(frozen=True, slots=True)
class OnInvoices:
    """All lines of the period's invoices; `held` says that Stripe's is a draft that is ours."""

    lines: Sequence[Line]
    held: bool

    def of_stripe(self, kind: str) -> int:
        """Return the cents of Stripe's own lines of a kind."""
        return sum(line.amount_cents for line in self.lines if line.kind == kind)

    def ours(self, statement_id: int) -> dict[int, list[Line]]:
        """Return our items for a statement by the number of its line."""
        found: dict[int, list[Line]] = {}
        for line in self.lines:
            if line.kind == "item" and line.marks.get(MARK_STATEMENT) == str(statement_id):
                found.setdefault(int(line.marks[MARK_LINE]), []).append(line)
        return found


def wanted_items(collection: Collection, on: OnInvoices) -> list[Wanted]:
    """Return the items that the invoices need to say what the statement says."""
    wanted: list[Wanted] = []
    for line in collection.lines:
        if line.collected_by == "item":
            wanted.append(Wanted(line.number, line.amount_cents, line.description))
        elif line.collected_by == "metered" and not on.held:
            rest = line.amount_cents - on.of_stripe("metered")
            wanted.append(Wanted(line.number, rest, f"{line.description}: not yet invoiced"))
    fee = _fee(collection)
    rest = (fee.amount_cents if fee else 0) - on.of_stripe("licensed")
    if fee is not None:
        wanted.append(Wanted(fee.number, rest, f"{fee.description}: difference"))
    else:
        wanted.append(Wanted(FEE_NOT_OWED, rest, "Base fee that is not owed"))
    return [each for each in wanted if each.amount_cents]


def differences(collection: Collection, on: OnInvoices) -> list[str]:
    """Return, in words, where the invoices do not say what the statement does; none if all is well.

    Lines that nobody of us made are no difference (`extra_lines`).
    """
    told: list[str] = []
    ours = on.ours(collection.statement_id)
    for want in wanted_items(collection, on):
        found = ours.pop(want.number, [])
        got = [line.amount_cents for line in found]
        if got != [want.amount_cents]:
            told.append(
                f"line {want.number} ({want.description}) should be {want.amount_cents} cents "
                f"and is {' and '.join(map(str, got)) or 'missing'}"
            )
    told += [f"an item stands for line {number}, which needs none" for number in sorted(ours)]
    if on.held:
        told += _metered_differences(collection, on)
    return told


def _metered_differences(collection: Collection, on: OnInvoices) -> list[str]:
    line = next((each for each in collection.lines if each.collected_by == "metered"), None)
    due_units, due_cents = (line.amount_nano_usd, line.amount_cents) if line else (0, 0)
    units = sum(int(each.quantity or 0) for each in on.lines if each.kind == "metered")
    cents = on.of_stripe("metered")
    if (units, cents) == (due_units, due_cents):
        return []
    return [
        f"Stripe's line for {CHARGE_METER} is {units:,} units and {cents} cents, the statement's "
        f"{due_units:,} and {due_cents}"
    ]


def extra_lines(collection: Collection, on: OnInvoices) -> list[Line]:
    """Return the items that somebody else has put on the invoices."""
    mark = str(collection.statement_id)
    return [
        line for line in on.lines if line.kind == "item" and line.marks.get(MARK_STATEMENT) != mark
    ]


def _fee(collection: Collection) -> StatementLine | None:
    """Return the fee that the invoice of this period's subscription collects in advance."""
    return next((line for line in collection.lines if line.collected_by == "subscription"), None)
