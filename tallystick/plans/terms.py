"""What a customer pays for a reply: a plan's terms, and what was negotiated on top of them.

Both are the dated data of ledger rows, validated when they are written and again when they are
read, so a row edited by hand fails loudly at the next request and not silently on an invoice. A
token kind that does not exist is refused too: misspelt, it would leave its markup unused for ever.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tallystick.money import Usd
from tallystick.pricing.tokens import TokenKind

# Few decimals, so that cost times markup times discount stays exact (`tallystick.money.EXACT`).
Markup = Annotated[Usd, Field(ge=-1, le=1_000, decimal_places=6)]
"""A share of the cost that is added to it: 0.2 adds twenty per cent, -0.1 takes ten off."""
Discount = Annotated[Usd, Field(ge=0, le=1, decimal_places=6)]
"""A share of the charge that is let off: 0.05 takes five per cent off what markups have made."""


class CustomerTerms(BaseModel):
    """What one customer has negotiated, over its plan's terms.

    What is None stays as the plan has it. A `markup` stands for every token kind that
    `markup_by_kind` here does not name, whatever the plan says of single kinds; a `markup_by_kind`
    alone changes those kinds only.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    markup: Markup | None = None
    markup_by_kind: Mapping[TokenKind, Markup] = Field(default_factory=dict[TokenKind, Markup])
    discount: Discount | None = None

    @classmethod
    def read(cls, terms: Mapping[str, Any]) -> "CustomerTerms":
        """Validate terms read from the ledger; raises pydantic's ValidationError."""
        return cls.model_validate(dict(terms))


class PlanTerms(BaseModel):
    """What a customer on the plan pays for a reply.

    `markup` is added to the cost of every line; `markup_by_kind` overrides it for the token kinds
    it names. `discount` comes off after that. `charge_failed_attempts` is the plan's policy on
    calls that ended without a reply (requirement 13): they are our cost and are shown as such. No
    plan can say otherwise, since nothing but Claude's report tells later what they did cost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Literal["pass-through"]
    markup: Markup = Decimal(0)
    markup_by_kind: Mapping[TokenKind, Markup] = Field(default_factory=dict[TokenKind, Markup])
    discount: Discount = Decimal(0)
    charge_failed_attempts: Literal[False] = False

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
