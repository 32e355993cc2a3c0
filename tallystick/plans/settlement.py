"""What a period comes to: from what was billed in it to the lines that collect it.

A plan may change inside a period, to the microsecond. What it says of a whole period (fee,
allowance, commitment) then counts by the share of the period that it was in force, rounded once to
nano-USD or tokens; its tiers are averaged by the same time. So changing to equal terms changes
nothing, and neither side gains by the moment that is chosen. The charge itself needs no proration:
every record carries the charge of its own instant.

The base fee is collected in advance, with the statement of the period before. What was collected
for this period is therefore an argument, and a change of plan or an end inside the period adds
lines for the difference. All else is collected afterwards. Everything is exact in nano-USD; cents
appear once, at the end, on the lines (`tallystick.plans.cents`).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from zoneinfo import ZoneInfo

from tallystick.money import NANO_PER_USD, from_nano_usd, to_nano_usd
from tallystick.plans.allowance import Included, use_allowance
from tallystick.plans.billed import Billed
from tallystick.plans.cents import NANO_PER_CENT, in_cents
from tallystick.plans.statement import (
    AllowanceUse,
    Collector,
    CommitmentUse,
    Line,
    LineKind,
    TiersUse,
    TierUse,
)
from tallystick.plans.terms import Model, PlanTerms
from tallystick.plans.tiers import amount, in_tiers
from tallystick.pricing.explain import dollars
from tallystick.pricing.tokens import TokenKind

CORRECTION = "Correction of what was collected for earlier usage"


@dataclass(frozen=True, slots=True)
class Span:
    """From `start` on, until before `end`, the plan was in force with these terms."""

    plan: str
    start: datetime
    end: datetime
    terms: PlanTerms


@dataclass(frozen=True, slots=True)
class Following:
    """The plan that the next period begins with, and that period."""

    plan: str
    start: datetime
    end: datetime
    time_zone: str
    terms: PlanTerms


@dataclass(frozen=True, slots=True)
class PeriodTerms:
    """What a period is settled by.

    `whole_end` is when it would have ended, had the account not ended before. `fee_nano_usd` is
    the base fee that was collected for it in advance. `following` is None where the account ends.
    An account opens with a period of no length and no spans, which collects the first base fee.
    """

    start: datetime
    end: datetime
    whole_end: datetime
    time_zone: str
    spans: tuple[Span, ...]
    following: Following | None
    fee_nano_usd: int = 0

    @property
    def model(self) -> Model:
        """The billing model of the period.

        Raises:
            ValueError: where it is not one model; moving to another takes effect between periods.
        """
        following = [self.following.terms] if self.following else []
        models: set[Model] = {
            each.model for each in [span.terms for span in self.spans] or following
        }
        if len(models) != 1:
            raise ValueError(f"the period from {self.start} has plans of {len(models)} models")
        return models.pop()


@dataclass(frozen=True, slots=True)
class Settlement:
    """What a period came to: how, and the lines that collect it."""

    allowance: AllowanceUse | None
    tiers: TiersUse | None
    commitment: CommitmentUse | None
    lines: tuple[Line, ...]

    @property
    def due_usd(self) -> Decimal:
        """What is to be collected, exactly."""
        return from_nano_usd(_due_nano(self.lines))

    @property
    def due_cents(self) -> int:
        """The same, rounded once."""
        return sum(line.amount_cents for line in self.lines)

    @property
    def remainder_usd(self) -> Decimal:
        """What that rounding left out."""
        return from_nano_usd(_due_nano(self.lines) - self.due_cents * NANO_PER_CENT)


def settle(terms: PeriodTerms, billed: Billed) -> Settlement:
    """Settle a period.

    Raises:
        ValueError: for plans of more than one model.
    """
    charge = billed.open_nano_usd()
    allowance, tiers, commitment = None, None, None
    reached = charge
    if included := _included(terms):
        allowance = use_allowance(included, billed.open_by_kind(), charge)
        reached = to_nano_usd(allowance.overage_usd)
    if any(span.terms.tiers for span in terms.spans):
        tiers = _use_tiers(terms, from_nano_usd(reached))
        reached = to_nano_usd(tiers.after_usd)
    if committed := round(_prorated(terms, lambda each: each.commitment_usd) * NANO_PER_USD):
        commitment = CommitmentUse(
            committed_usd=from_nano_usd(committed),
            reached_usd=from_nano_usd(reached),
            true_up_usd=from_nano_usd(max(committed - reached, 0)),
        )
    wanted = [
        *_usage(terms, billed, allowance),
        *_after_usage(terms, tiers, commitment),
        *_some("metering_correction", CORRECTION, billed.corrections_nano_usd),
        *_fees(terms),
        *_wallet(billed),
    ]
    return Settlement(allowance, tiers, commitment, _lines(wanted))


# --- What a period includes, prorated -------------------------------------------------------------
def _included(terms: PeriodTerms) -> Included | None:
    if not any(span.terms.allowance for span in terms.spans):
        return None
    money = _prorated(terms, lambda each: each.allowance and each.allowance.usd)
    tokens = {
        kind: _prorated(terms, lambda each: each.allowance and each.allowance.tokens.get(kind))  # noqa: B023
        for kind in TokenKind
    }
    return Included(
        nano_usd=round(money * NANO_PER_USD),
        tokens={kind: round(quantity) for kind, quantity in tokens.items() if quantity},
    )


def _prorated(terms: PeriodTerms, of: Callable[[PlanTerms], Decimal | int | None]) -> Fraction:
    """Add up what the terms say of a whole period, by the share that each was in force."""
    return sum(
        (
            Fraction(of(span.terms) or 0) * _share(terms, span.start, span.end)
            for span in terms.spans
        ),
        Fraction(0),
    )


def _share(terms: PeriodTerms, start: datetime, end: datetime) -> Fraction:
    return Fraction(_length(start, end), _length(terms.start, terms.whole_end))


def _length(start: datetime, end: datetime) -> int:
    """Return a span of time in microseconds, all that an instant has."""
    return (end - start) // timedelta(microseconds=1)


def _use_tiers(terms: PeriodTerms, charge_usd: Decimal) -> TiersUse:
    # By time and not by when the charge arose: volume is that of the whole period.
    weighed, of = Fraction(0), 0
    segments: list[TierUse] = []
    for span in terms.spans:
        parts = in_tiers(charge_usd, span.terms.tiers)
        # At least a moment: an account may end as its period begins.
        length = max(_length(span.start, span.end), 1)
        weighed, of = weighed + Fraction(amount(parts)) * length, of + length
        segments.append(
            TierUse(
                plan=span.plan,
                seconds=length // 10**6,
                mode=span.terms.tiers.mode if span.terms.tiers else "none",
                parts=parts,
            )
        )
    return TiersUse(
        before_usd=charge_usd,
        after_usd=from_nano_usd(round(weighed * NANO_PER_USD / of)),
        segments=tuple(segments),
    )


# --- Lines ----------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Wanted:
    kind: LineKind
    collected_by: Collector
    description: str
    nano_usd: int


def _lines(wanted: list[_Wanted]) -> tuple[Line, ...]:
    """Number the lines and round them; what the wallet has paid is collected in no cents."""
    due = iter(in_cents(each.nano_usd for each in wanted if each.collected_by != "wallet"))
    return tuple(
        Line(
            number=number,
            kind=each.kind,
            collected_by=each.collected_by,
            description=each.description,
            amount_usd=from_nano_usd(each.nano_usd),
            amount_cents=0 if each.collected_by == "wallet" else next(due),
        )
        for number, each in enumerate(wanted, start=1)
    )


def _usage(terms: PeriodTerms, billed: Billed, allowance: AllowanceUse | None) -> Iterator[_Wanted]:
    if terms.model == "hybrid":
        beyond = " beyond what the plan includes" if allowance else ""
        charge = billed.open_nano_usd() if allowance is None else to_nano_usd(allowance.overage_usd)
        yield from _some("overage", f"Claude usage{beyond}, {_dates(terms)}", charge)
        return
    if terms.model == "pass-through":
        # Always there, as Stripe's own line of the metered price is, and the first (`cents`).
        metered = billed.open_nano_usd("usage") - billed.withdrawn_nano_usd
        yield _Wanted("usage", "metered", f"Claude usage, {_dates(terms)}", metered)
        yield from _some(
            "unmetered_usage",
            f"Claude usage that the meter has missed, {_dates(terms)}",
            billed.withdrawn_nano_usd,
        )
    since = _day(terms.start, terms.time_zone)
    yield from _some(
        "late_usage",
        f"Claude usage before {since}, recorded later",
        billed.open_nano_usd("late_usage"),
    )
    yield from _some(
        "adjustments", "Corrections of earlier usage", billed.open_nano_usd("adjustments")
    )


def _after_usage(
    terms: PeriodTerms, tiers: TiersUse | None, commitment: CommitmentUse | None
) -> Iterator[_Wanted]:
    if tiers is not None:
        yield from _some(
            "tiers",
            f"Volume price for usage of {dollars(tiers.before_usd)}",
            to_nano_usd(tiers.after_usd) - to_nano_usd(tiers.before_usd),
        )
    if commitment is not None:
        yield from _some(
            "commitment",
            f"Rest of the agreed minimum of {dollars(commitment.committed_usd)}, {_dates(terms)}",
            to_nano_usd(commitment.true_up_usd),
        )


def _fees(terms: PeriodTerms) -> Iterator[_Wanted]:
    if terms.spans:
        yield from _this_period(terms, terms.spans[0], terms.spans[-1])
    if terms.following is not None:
        same = terms.following.terms.model == terms.model
        yield from _fee_ahead(terms.following, "subscription" if same else "new_subscription")


def _this_period(terms: PeriodTerms, first: Span, last: Span) -> Iterator[_Wanted]:
    """Yield what makes the fee collected in advance the one that is right in the end."""
    yield from _proration(
        f"Base fee of {first.plan}, not collected in advance",
        to_nano_usd(first.terms.base_fee_usd) - terms.fee_nano_usd,
    )
    for before, after in pairwise(terms.spans):
        if before.terms.base_fee_usd != after.terms.base_fee_usd:
            at = _instant(after.start, terms.time_zone)
            yield from _proration(
                f"Base fee of {before.plan}, unused from {at}", -_rest(terms, before, after.start)
            )
            yield from _proration(
                f"Base fee of {after.plan} from {at}", _rest(terms, after, after.start)
            )
    yield from _proration(
        f"Base fee of {last.plan}, unused from {_instant(terms.end, terms.time_zone)}",
        -_rest(terms, last, terms.end),
    )


def _rest(terms: PeriodTerms, span: Span, since: datetime) -> int:
    """Return the base fee for what is left of the whole period, in nano-USD."""
    share = _share(terms, since, terms.whole_end)
    return round(Fraction(span.terms.base_fee_usd) * NANO_PER_USD * share)


def _fee_ahead(following: Following, collected_by: Collector) -> Iterator[_Wanted]:
    start, end = (_day(at, following.time_zone) for at in (following.start, following.end))
    fee = to_nano_usd(following.terms.base_fee_usd)
    if fee:
        said = f"Base fee of {following.plan}, {start} to {end}"
        yield _Wanted("base_fee", collected_by, said, fee)


def _wallet(billed: Billed) -> Iterator[_Wanted]:
    if paid := billed.from_wallet_nano_usd:
        yield _Wanted("credits", "wallet", "Claude usage paid from credit", paid)


def _proration(description: str, nano_usd: int) -> Iterator[_Wanted]:
    yield from _some("proration", description, nano_usd)


def _some(kind: LineKind, description: str, nano_usd: int) -> Iterator[_Wanted]:
    """Yield an invoice item, where there is something to collect or to give back."""
    if nano_usd:
        yield _Wanted(kind, "item", description, nano_usd)


def _due_nano(lines: tuple[Line, ...]) -> int:
    return sum(to_nano_usd(line.amount_usd) for line in lines if line.collected_by != "wallet")


def _dates(terms: PeriodTerms) -> str:
    return f"{_day(terms.start, terms.time_zone)} to {_day(terms.end, terms.time_zone)}"


def _day(at: datetime, time_zone: str) -> str:
    return at.astimezone(ZoneInfo(time_zone)).strftime("%Y-%m-%d")


def _instant(at: datetime, time_zone: str) -> str:
    return at.astimezone(ZoneInfo(time_zone)).strftime("%Y-%m-%d %H:%M %Z")
