"""A plan's terms, as the dated data of a ledger row.

Terms are validated when they are written and again when they are read, so a row edited by hand
fails loudly at the next request and not silently on an invoice.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tallystick.money import Usd

Fraction = Annotated[Usd, Field(ge=-1)]
"""A share of the cost: 0.2 adds twenty per cent, -0.1 is a discount of ten."""


class PlanTerms(BaseModel):
    """What a customer on the plan pays for a reply.

    `markup` is added to the cost of every line; `markup_by_kind` overrides it for the token kinds
    it names.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: Literal["pass-through"]
    markup: Fraction = Decimal(0)
    markup_by_kind: Mapping[str, Fraction] = Field(default_factory=dict)

    @classmethod
    def read(cls, terms: Mapping[str, Any]) -> "PlanTerms":
        """Validate terms read from the ledger; raises pydantic's ValidationError."""
        return cls.model_validate(dict(terms))

    def markup_on(self, kind: str) -> Decimal:
        """Return the markup on one token kind, as a fraction of its cost."""
        return self.markup_by_kind.get(kind, self.markup)
