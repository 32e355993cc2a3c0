"""What the ledger has billed in a period, by model and token kind, as lines that add up.

The ledger sums quantities; what they cost and are charged follows from the unit prices and terms
that every record keeps. A record's charge was rounded once to nano-USD, so the exact charges of the
lines differ from the sum of the records by less than a nano-USD each; the difference is a line of
its own. More than that would mean that a charge cannot be explained, and no statement is made of
it.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from fractions import Fraction
from typing import NamedTuple

from tallystick.money import EXACT, from_nano_usd, times, total
from tallystick.plans.statement import CostLine, Section, SectionName, UsageLine
from tallystick.plans.terms import PlanTerms
from tallystick.pricing.tokens import TokenKind

SECTIONS: tuple[SectionName, ...] = ("usage", "late_usage", "adjustments")


@dataclass(frozen=True, slots=True)
class Sold:
    """So many of a kind at one unit price under one set of terms; in adjustments, differences.

    `first_at` is the earliest instant any of it was served.
    """

    section: SectionName
    terms: PlanTerms
    model: str
    kind: TokenKind
    unit_usd: Decimal
    batch: bool
    first_at: datetime
    quantity: int

    @property
    def cost_usd(self) -> Decimal:
        """What Claude charges for it."""
        return times(self.quantity, self.unit_usd)

    @property
    def charge_usd(self) -> Decimal:
        """What the customer is charged for it, exactly."""
        return times(self.terms.factor(self.kind), self.cost_usd)


@dataclass(frozen=True, slots=True)
class Booked:
    """What the ledger's rows of one section under one set of terms add up to."""

    section: SectionName
    terms: PlanTerms
    records: int
    cost_usd: Decimal
    charge_nano_usd: int


class Used(NamedTuple):
    """What was used of a kind in a period, and the exact charge for it in nano-USD."""

    quantity: int
    charge: Fraction


@dataclass(frozen=True, slots=True)
class Billed:
    """Everything that a period has billed.

    Usage under a prepaid plan was paid by the wallet when it was recorded. `withdrawn_nano_usd` is
    the part of `usage` that Stripe was never told of; `corrections_nano_usd` is no charge, but what
    an earlier period's meter has collected too little of one, negative if too much; `unpriced` are
    requests without a price yet.
    """

    sold: tuple[Sold, ...] = ()
    booked: tuple[Booked, ...] = ()
    withdrawn_nano_usd: int = 0
    corrections_nano_usd: int = 0
    unpriced: int = 0

    @property
    def charge_nano_usd(self) -> int:
        """All of it, as the ledger has charged it."""
        return sum(each.charge_nano_usd for each in self.booked)

    @property
    def cost_usd(self) -> Decimal:
        """What all of it costs us."""
        return total(each.cost_usd for each in self.booked)

    @property
    def from_wallet_nano_usd(self) -> int:
        """The part that the wallet has paid."""
        return sum(each.charge_nano_usd for each in self.booked if _prepaid(each.terms))

    def open_nano_usd(self, *of: SectionName) -> int:
        """Return what is not paid yet of these sections, of all where none is named."""
        return sum(
            each.charge_nano_usd
            for each in self.booked
            if each.section in (of or SECTIONS) and not _prepaid(each.terms)
        )

    def open_by_kind(self) -> dict[TokenKind, Used]:
        """Return what was used and is not paid yet, by kind, in the order of `TokenKind`."""
        found: dict[TokenKind, Used] = {}
        for kind in TokenKind:
            sold = [each for each in self.sold if each.kind == kind and not _prepaid(each.terms)]
            if sold:
                charge = Fraction(total(each.charge_usd for each in sold)) * 10**9
                found[kind] = Used(sum(each.quantity for each in sold), charge)
        return found

    def sections(self) -> dict[SectionName, Section]:
        """Return the sections that have something.

        Raises:
            ValueError: for charges or costs that the lines do not explain.
        """
        return {
            name: self._section(name)
            for name in SECTIONS
            if any(each.section == name for each in self.booked)
        }

    def costs(self) -> tuple[CostLine, ...]:
        """Return what each line of the sections costs us."""
        return tuple(
            CostLine(
                section=name, model=model, kind=kind, cost_usd=total(each.cost_usd for each in sold)
            )
            for name in SECTIONS
            for (model, kind), sold in self._lines(name).items()
        )

    def _section(self, name: SectionName) -> Section:
        booked = [each for each in self.booked if each.section == name]
        records = sum(each.records for each in booked)
        lines = self._lines(name)
        charge = from_nano_usd(sum(each.charge_nano_usd for each in booked))
        rounding = EXACT.subtract(charge, _charge(each for sold in lines.values() for each in sold))
        cost = total(each.cost_usd for sold in lines.values() for each in sold)
        if abs(rounding) > from_nano_usd(records) or cost != total(b.cost_usd for b in booked):
            raise ValueError(
                f"{name}: the bill lines of {records:,} records come to a cost of {cost} and are "
                f"{rounding} from their charge of {charge}; find the record whose lines are wrong"
            )
        return Section(
            records=records,
            lines=tuple(
                UsageLine(
                    model=model,
                    kind=kind,
                    quantity=sum(each.quantity for each in sold),
                    charge_usd=_charge(sold),
                )
                for (model, kind), sold in lines.items()
            ),
            rounding_usd=rounding,
            charge_usd=charge,
        )

    def _lines(self, name: SectionName) -> Mapping[tuple[str, TokenKind], list[Sold]]:
        """Return what is sold of each model and kind, by name and in the order of `TokenKind`."""
        lines: dict[tuple[str, TokenKind], list[Sold]] = defaultdict(list)
        order = list(TokenKind)
        for each in sorted(self.sold, key=lambda each: (each.model, order.index(each.kind))):
            if each.section == name:
                lines[each.model, each.kind].append(each)
        return lines


def _charge(sold: Iterable[Sold]) -> Decimal:
    return total(each.charge_usd for each in sold)


def _prepaid(terms: PlanTerms) -> bool:
    return terms.model == "prepaid"
