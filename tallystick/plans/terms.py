"""What a customer pays: a plan's terms, and what was negotiated on top of them.

Both are the dated data of ledger rows, validated when they are written and again when they are
read, so a row edited by hand fails loudly at the next request and not silently on an invoice. A
token kind that does not exist is refused too: misspelt, it would leave its markup unused for ever.
So is a term that the plan's model has no use for: it would promise something that nobody keeps.
"""

from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tallystick.money import Usd
from tallystick.pricing.tokens import TokenKind

# Few decimals, so that cost times markup times discount stays exact (`tallystick.money.EXACT`).
Markup = Annotated[Usd, Field(ge=-1, le=1_000, decimal_places=6)]
"""A share of the cost that is added to it: 0.2 adds twenty per cent, -0.1 takes ten off."""
Discount = Annotated[Usd, Field(ge=0, le=1, decimal_places=6)]
"""A share of the charge that is let off: 0.05 takes five per cent off what markups have made."""
Factor = Annotated[Usd, Field(ge=0, le=1_000, decimal_places=6)]
"""What a charge is multiplied by: 0.9 lets ten per cent off."""
Price = Annotated[Usd, Field(ge=0, le=1_000_000, decimal_places=2)]
"""Dollars in whole cents, since Stripe collects it as it stands."""
Amount = Annotated[Usd, Field(ge=0, le=1_000_000_000, decimal_places=9)]
"""Dollars in whole nano-USD, to be compared or added up with charges."""

Model = Literal["pass-through", "prepaid", "hybrid"]


class _Terms(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CustomerTerms(_Terms):
    """What one customer has negotiated, over its plan's terms.

    What is None stays as the plan has it. A `markup` stands for every token kind that
    `markup_by_kind` here does not name, whatever the plan says of single kinds; a `markup_by_kind`
    alone changes those kinds only. All that concerns a whole period (an allowance, tiers, a
    commitment) is negotiated as a plan of its own.
    """

    markup: Markup | None = None
    markup_by_kind: Mapping[TokenKind, Markup] = Field(default_factory=dict[TokenKind, Markup])
    discount: Discount | None = None

    @classmethod
    def read(cls, terms: Mapping[str, Any]) -> "CustomerTerms":
        """Validate terms read from the ledger; raises pydantic's ValidationError."""
        return cls.model_validate(dict(terms))


class Allowance(_Terms):
    """Usage that the base fee of a period includes: so much of its charge, or so many tokens.

    Tokens are counted by kind; what is used of a kind beyond them is charged as ever.
    """

    usd: Annotated[Amount, Field(gt=0)] | None = None
    tokens: Mapping[TokenKind, Annotated[int, Field(gt=0, le=10**15)]] = Field(
        default_factory=dict[TokenKind, int]
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.usd is None) == (not self.tokens):
            raise ValueError("allowance: give either usd or tokens")
        return self


class Bracket(_Terms):
    """A range of a period's charge, up to and with `up_to_usd`, and what it is multiplied by."""

    up_to_usd: Annotated[Amount, Field(gt=0)] | None = None
    """None is without end."""
    factor: Factor


class Tiers(_Terms):
    """Volume prices over the charge that an allowance has left of a period.

    `graduated` multiplies each part of the charge by the factor of the bracket it lies in, `volume`
    all of it by the factor of the bracket that the whole lies in.
    """

    mode: Literal["graduated", "volume"]
    brackets: Annotated[tuple[Bracket, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _ascending_without_end(self) -> Self:
        *bounded, last = (bracket.up_to_usd for bracket in self.brackets)
        if last is not None or None in bounded:
            raise ValueError("tiers.brackets: leave up_to_usd out in the last bracket, and only it")
        if any(low >= high for low, high in pairwise(up_to for up_to in bounded if up_to)):
            raise ValueError("tiers.brackets: order them by up_to_usd, each higher than the last")
        return self


class TopUpTerms(_Terms):
    """When a prepaid balance is filled up by itself: below how much, by how much, for how long."""

    below_usd: Amount
    amount_usd: Annotated[Price, Field(ge=1)]
    expires_after_days: Annotated[int, Field(gt=0, le=3_650)] | None = None


class PlanTerms(_Terms):
    """What a customer on the plan pays, how, and what happens when it does not.

    For a reply: `markup` is added to the cost of every line; `markup_by_kind` overrides it for the
    token kinds it names. `discount` comes off after that. `charge_failed_attempts` is the plan's
    policy on calls that ended without a reply (requirement 13): they are our cost and are shown as
    such. No plan can say otherwise, since nothing but Claude's report tells later what they did
    cost.

    For a period (`tallystick.plans.settlement`): `base_fee_usd` is paid in advance and includes the
    `allowance`; `tiers` stand over the charge that is left; `commitment_usd` is the least that
    usage comes to after both.

    For a customer: `spend_cap_usd` is the cap of those that have none of their own. Service goes on
    for `grace_days` after a payment failed, with reminders on `reminder_days` of them. Invoices are
    paid at once, or `payment_terms_days` after they are final. A prepaid balance is said to be low
    under `low_balance_usd`.
    """

    model: Model
    markup: Markup = Decimal(0)
    markup_by_kind: Mapping[TokenKind, Markup] = Field(default_factory=dict[TokenKind, Markup])
    discount: Discount = Decimal(0)
    charge_failed_attempts: Literal[False] = False
    base_fee_usd: Price = Decimal(0)
    allowance: Allowance | None = None
    tiers: Tiers | None = None
    commitment_usd: Amount = Decimal(0)
    spend_cap_usd: Annotated[Amount, Field(gt=0)] | None = None
    grace_days: Annotated[int, Field(ge=0, le=60)] = 3
    reminder_days: tuple[Annotated[int, Field(gt=0)], ...] = (1, 2)
    payment_terms_days: Annotated[int, Field(ge=0, le=90)] = 0
    top_up: TopUpTerms | None = None
    low_balance_usd: Annotated[Amount, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _only_what_its_model_has(self) -> Self:
        for name, models in _ONLY_IN.items():
            if self.model not in models and getattr(self, name):
                raise ValueError(
                    f"{name}: a {self.model} plan has none; leave it out, or choose model "
                    f"{' or '.join(models)}"
                )
        if self.model == "hybrid" and not self.base_fee_usd:
            raise ValueError(
                "base_fee_usd: a hybrid plan needs one; without one, choose model pass-through"
            )
        return self

    @model_validator(mode="after")
    def _days_that_make_sense(self) -> Self:
        days = self.reminder_days
        if any(day >= self.grace_days for day in days) or list(days) != sorted(set(days)):
            raise ValueError(
                f"reminder_days: name days before the end of grace_days ({self.grace_days}), each "
                "once and in order; [] reminds nobody"
            )
        if 0 < self.payment_terms_days < _SHORTEST_TERMS:
            raise ValueError(
                f"payment_terms_days: 0 collects at once, {_SHORTEST_TERMS} to 90 gives terms; "
                f"for less time to pay after a failure, use grace_days"
            )
        return self

    @classmethod
    def read(cls, terms: Mapping[str, Any]) -> "PlanTerms":
        """Validate terms read from the ledger; raises pydantic's ValidationError."""
        return cls.model_validate(dict(terms))

    def negotiated(self, own: CustomerTerms) -> "PlanTerms":
        """Return these terms with a customer's own put over them."""
        kinds = dict(self.markup_by_kind) if own.markup is None else {}
        return self.model_copy(
            update={
                "markup": self.markup if own.markup is None else own.markup,
                "markup_by_kind": {**kinds, **own.markup_by_kind},
                "discount": self.discount if own.discount is None else own.discount,
            }
        )

    def factor(self, kind: str) -> Decimal:
        """Return what the cost of one token kind is multiplied by to make the charge."""
        markup = self.markup_by_kind.get(TokenKind(kind), self.markup)
        return (1 + markup) * (1 - self.discount)

    @property
    def highest_factor(self) -> Decimal:
        """The largest that any kind is multiplied by."""
        return max(self.factor(kind) for kind in TokenKind)


_SHORTEST_TERMS = 45
"""Days; requirement 44 supports terms of 45 to 90."""
_ONLY_IN: Mapping[str, tuple[Model, ...]] = {
    "base_fee_usd": ("hybrid",),
    "allowance": ("hybrid",),
    "tiers": ("pass-through", "hybrid"),
    "commitment_usd": ("pass-through", "hybrid"),
    "payment_terms_days": ("pass-through", "hybrid"),
    "top_up": ("prepaid",),
    "low_balance_usd": ("prepaid",),
}
"""Terms that not every model has a use for. A prepaid balance is burnt record by record and paid
beforehand, so there is no period to settle and nothing to collect later."""
