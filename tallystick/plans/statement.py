"""The statement: everything that one period came to, as the one document that is kept of it.

It is written once and read for years, so it holds all that it tells: names, dates, quantities and
exact amounts, and nothing that would have to be looked up in terms or prices that have moved on.
Amounts that belong together add up exactly: the lines of a section and their rounding to what the
ledger has charged, the lines to collect to what is due, their cents to what is due in cents.

What only the operator may see is in one field, `operator`; without it the document is the
customer's copy (`for_customer`).
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tallystick.money import Usd
from tallystick.plans.terms import Allowance, Model, Tiers
from tallystick.pricing.tokens import TokenKind

SectionName = Literal["usage", "late_usage", "adjustments"]
LineKind = Literal[
    "usage",
    "unmetered_usage",
    "late_usage",
    "adjustments",
    "base_fee",
    "proration",
    "overage",
    "tiers",
    "commitment",
    "metering_correction",
    "credits",
]
Collector = Literal["metered", "subscription", "new_subscription", "item", "wallet"]
"""Who makes the line that collects an amount.

Stripe does, from meter events (`metered`) or as the price of the subscription whose invoice the
statement belongs to (`subscription`), or of one that begins where the period ends and has its own
first invoice (`new_subscription`). Or we do, as an invoice item (`item`). What the `wallet` has
paid already is collected from nobody.
"""


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Segment(_Frozen):
    """A part of the period on one row of a plan's terms, and what those say about a period."""

    plan: str
    start: datetime
    end: datetime
    base_fee_usd: Usd
    allowance: Allowance | None
    tiers: Tiers | None
    commitment_usd: Usd


class UsageLine(_Frozen):
    """What was used of one kind by one model, and the exact charge for it.

    In adjustments both are differences and may be negative.
    """

    model: str
    kind: TokenKind
    quantity: int
    charge_usd: Usd


class Section(_Frozen):
    """Usage that was charged under one heading.

    `records` counts requests, or corrections of them. Each was rounded once to nano-USD, so the
    lines and `rounding_usd` together are `charge_usd`, what the ledger has.
    """

    records: int
    lines: tuple[UsageLine, ...]
    rounding_usd: Usd
    charge_usd: Usd


class Savings(_Frozen):
    """What caching and the batch price saved, in the customer's own money.

    Caching is negative where writing to the cache cost more than reading from it saved.
    """

    cache_usd: Usd
    batch_usd: Usd


class ResentHistory(_Frozen):
    """How much of the prompts of conversations was history sent again (`tallystick.insight`)."""

    turns: int
    prompt_tokens: int
    resent_tokens: int
    resent_percent: int
    resent_usd: Usd
    lost_cache_usd: Usd


class TokensIncluded(_Frozen):
    """An allowance of one kind of token: so many included, so many used, so much let off."""

    kind: TokenKind
    included: int
    used: int
    covered_usd: Usd

    @property
    def left(self) -> int:
        """How many were included and not used."""
        return max(self.included - self.used, 0)


class AllowanceUse(_Frozen):
    """What the base fee included and how much of it was used.

    `included_usd` is None for an allowance of tokens alone. `covered_usd` is the charge that it let
    off in all, `left_usd` what could still have been used of the money; `overage_usd` is the charge
    that went beyond.
    """

    included_usd: Usd | None
    left_usd: Usd | None
    tokens: tuple[TokensIncluded, ...]
    covered_usd: Usd
    overage_usd: Usd


class TierPart(_Frozen):
    """So much of the charge in one bracket (None: without end), and what it comes to."""

    up_to_usd: Usd | None
    factor: Usd
    charge_usd: Usd
    amount_usd: Usd


class TierUse(_Frozen):
    """The charge under the tiers of one segment, as if they had held for the whole period.

    `seconds` is for how long they did; the period's amount is the average by time.
    """

    plan: str
    seconds: int
    mode: Literal["none", "graduated", "volume"]
    parts: tuple[TierPart, ...]


class TiersUse(_Frozen):
    """Volume prices: the charge before and after them, and how they were worked out."""

    before_usd: Usd
    after_usd: Usd
    segments: tuple[TierUse, ...]


class CommitmentUse(_Frozen):
    """The least that usage was agreed to come to, what it came to, and the rest."""

    committed_usd: Usd
    reached_usd: Usd
    true_up_usd: Usd


class Movement(_Frozen):
    """Movements of one kind of one grant in the period, added up; no grant is the overdraft."""

    kind: str
    grant: str | None
    grant_kind: str | None
    count: int
    first_at: datetime
    last_at: datetime
    amount_usd: Usd


class WalletUse(_Frozen):
    """The prepaid balance at both ends of the period; the movements lie between, exactly."""

    opening_usd: Usd
    movements: tuple[Movement, ...]
    closing_usd: Usd


class Line(_Frozen):
    """One amount to be collected, exactly and in the cents that it counts for.

    Line cents are what the rounded total grows by with the line, so they add up to it. A line of
    the wallet counts for none.
    """

    number: int
    kind: LineKind
    collected_by: Collector
    description: str
    amount_usd: Usd
    amount_cents: int


class CostLine(_Frozen):
    """What Claude charges us for a line of usage."""

    section: SectionName
    model: str
    kind: TokenKind
    cost_usd: Usd


class LostAttempts(_Frozen):
    """Calls that brought no answer: our cost, charged to nobody (`tallystick.lost_calls`).

    Of the `settled` it is known by Claude's report what they have cost.
    """

    failed: int
    unknown: int
    estimated_cost_usd: Usd
    settled: int = 0
    settled_cost_usd: Usd = Decimal(0)


class OperatorCopy(_Frozen):
    """Our side of the period, in no copy of the customer's.

    `earned_usd` is what the period's own service earns: this statement's lines without the next
    period's base fee and corrections of earlier periods' meters, with this period's own fee, and
    credits used that were paid for. `margin_usd` is that less the cost of the answers and of lost
    calls, known or estimated, before any fee for payments.
    """

    costs: tuple[CostLine, ...]
    cost_usd: Usd
    lost: LostAttempts
    earned_usd: Usd
    margin_usd: Usd


class Statement(_Frozen):
    """What one period came to.

    `ordinal` counts periods from 1; 0 opens an account that pays its base fee in advance and has no
    usage. `period_start` and `period_end` bound the instants by which usage is billed. `usage_usd`
    is the charge of everything the ledger has billed in it, `due_usd` what is to be collected,
    `due_cents` the same rounded once, `remainder_usd` what that rounding left out (negative where
    it rounded up); it is never carried on. `summary` says it all in plain words.
    """

    customer_id: str
    customer_name: str
    ordinal: int
    period_start: datetime
    period_end: datetime
    time_zone: str
    model: Model
    plan: str
    """At the end of the period."""
    segments: tuple[Segment, ...]
    sections: Mapping[SectionName, Section]
    """Those that have something, in the order of their names' list."""
    unpriced: int
    """Requests of the period whose price is not known yet; they are billed once it is."""
    usage_usd: Usd
    savings: Savings
    history: ResentHistory | None
    allowance: AllowanceUse | None
    tiers: TiersUse | None
    commitment: CommitmentUse | None
    wallet: WalletUse | None
    lines: tuple[Line, ...]
    due_usd: Usd
    due_cents: int
    remainder_usd: Usd
    summary: tuple[str, ...]
    operator: OperatorCopy | None

    def for_customer(self) -> "Statement":
        """Return the customer's copy: all but what only the operator may see."""
        return self.model_copy(update={"operator": None})
