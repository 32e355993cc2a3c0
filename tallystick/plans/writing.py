"""Drawing up a statement: a settlement and everything that is told beside it, in one document."""

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from tallystick.insight import History
from tallystick.money import EXACT, from_nano_usd, total
from tallystick.plans.billed import Billed
from tallystick.plans.savings import savings
from tallystick.plans.settlement import PeriodTerms, Settlement, Span, settle
from tallystick.plans.statement import (
    Line,
    LostAttempts,
    OperatorCopy,
    ResentHistory,
    Segment,
    Statement,
    WalletUse,
)
from tallystick.plans.summary import in_words

NONE_LOST = LostAttempts(failed=0, unknown=0, estimated_cost_usd=Decimal(0))


@dataclass(frozen=True, slots=True)
class Heading:
    """Whose statement it is, and its number."""

    customer_id: str
    customer_name: str
    ordinal: int


@dataclass(frozen=True, slots=True)
class Beside:
    """What a statement tells beside the settlement. None where there is nothing to tell."""

    history: History | None = None
    wallet: WalletUse | None = None
    lost: LostAttempts = NONE_LOST


def write_statement(
    heading: Heading, terms: PeriodTerms, billed: Billed, beside: Beside
) -> Statement:
    """Settle a period and draw up its statement.

    Raises:
        ValueError: for charges that their lines do not explain, or plans of more than one model.
    """
    settlement = settle(terms, billed)
    last = terms.spans[-1] if terms.spans else terms.following
    assert last is not None  # noqa: S101 - `terms.model` would have raised
    statement = Statement(
        customer_id=heading.customer_id,
        customer_name=heading.customer_name,
        ordinal=heading.ordinal,
        period_start=terms.start,
        period_end=terms.end,
        time_zone=terms.time_zone,
        model=terms.model,
        plan=last.plan,
        segments=tuple(_segment(span) for span in terms.spans),
        sections=billed.sections(),
        unpriced=billed.unpriced,
        usage_usd=from_nano_usd(billed.charge_nano_usd),
        savings=savings(billed.sold),
        history=_resent(beside.history) if beside.history else None,
        allowance=settlement.allowance,
        tiers=settlement.tiers,
        commitment=settlement.commitment,
        wallet=beside.wallet,
        lines=settlement.lines,
        due_usd=settlement.due_usd,
        due_cents=settlement.due_cents,
        remainder_usd=settlement.remainder_usd,
        summary=(),
        operator=_operator(terms, billed, settlement, beside),
    )
    return statement.model_copy(update={"summary": in_words(statement)})


def _segment(span: Span) -> Segment:
    return Segment(
        plan=span.plan,
        start=span.start,
        end=span.end,
        base_fee_usd=span.terms.base_fee_usd,
        allowance=span.terms.allowance,
        tiers=span.terms.tiers,
        commitment_usd=span.terms.commitment_usd,
    )


def _resent(history: History) -> ResentHistory:
    return ResentHistory(
        turns=history.turns,
        prompt_tokens=history.prompt_tokens,
        resent_tokens=history.resent_tokens,
        resent_percent=history.resent_percent,
        resent_usd=history.resent_usd,
        lost_cache_usd=history.lost_cache_usd,
    )


def _operator(
    terms: PeriodTerms, billed: Billed, settlement: Settlement, beside: Beside
) -> OperatorCopy:
    earned = total(
        [
            *(each.amount_usd for each in settlement.lines if _of_this_period(each)),
            from_nano_usd(terms.fee_nano_usd),
            *_paid_credit_used(beside.wallet),
        ]
    )
    lost = beside.lost
    spent = total([billed.cost_usd, lost.estimated_cost_usd, lost.settled_cost_usd])
    return OperatorCopy(
        costs=billed.costs(),
        cost_usd=billed.cost_usd,
        lost=lost,
        earned_usd=earned,
        margin_usd=EXACT.subtract(earned, spent),
    )


def _of_this_period(line: Line) -> bool:
    """Tell whether a line earns for this period: the base fee is the next one's, and a correction
    of the meter was earned by an earlier one's statement."""
    return line.collected_by != "wallet" and line.kind not in ("base_fee", "metering_correction")


def _paid_credit_used(wallet: WalletUse | None) -> Iterable[Decimal]:
    for each in wallet.movements if wallet else ():
        if each.kind in ("usage", "adjustment") and each.grant_kind != "promotional":
            yield EXACT.copy_negate(each.amount_usd)
