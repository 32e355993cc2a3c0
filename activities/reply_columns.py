"""What a reply leaves in its usage record, whether it came by itself or in a batch.

Rating and charging are `tallystick.pricing`'s and `tallystick.plans`'; here they become the columns
of a row, in one place, so that two ways to the ledger cannot write two kinds of record.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from tallystick.ledger.terms import TermsInForce
from tallystick.metering import meter_values
from tallystick.plans import Charge, charge, typical_costs
from tallystick.pricing import TOKEN_KINDS, Rating, TokenCounts, TokenKind, explain
from tallystick.pricing.evidence import evidence


@dataclass(frozen=True, slots=True)
class BilledReply:
    """A rated reply under a customer's terms.

    `tokens` is what is billed: a reply that is not billed keeps its counts in the evidence alone.
    `charged` is None while the price is unknown.
    """

    model: str
    tokens: TokenCounts
    charged: Charge | None
    columns: dict[str, Any]

    @property
    def meter_values(self) -> list[tuple[str, int]]:
        """What it leaves on the meters; without a price nothing yet, the events follow with it."""
        if self.charged is None:
            return []
        return meter_values(self.charged.nano_usd, self.tokens.by_kind())


def bill_reply(
    reply: Mapping[str, Any], rating: Rating, agreed: TermsInForce, *, asked_model: str
) -> BilledReply:
    """Work out what Claude served, what it cost and what the customer pays.

    Args:
        reply: the Messages API reply.
        rating: its rating.
        agreed: the customer's terms when it was served.
        asked_model: the model that was asked for, where the reply names none.
    """
    charged = None if rating.cost_usd is None else charge(rating.lines, agreed.terms)
    billed = TokenCounts() if rating.status == "not_billed" else rating.tokens
    tokens = billed.by_kind()
    model = reply.get("model") or asked_model
    columns: dict[str, Any] = {
        "model": model,
        "stop_reason": reply.get("stop_reason"),
        "partial": rating.partial,
        "response_chars": response_chars(reply),
        **{f"{kind}_tokens": tokens[kind] for kind in TOKEN_KINDS},
        "web_searches": tokens[TokenKind.WEB_SEARCH],
        "evidence": evidence(reply),
        "status": rating.status if rating.status in ("priced", "not_billed") else "unpriced",
        "reason": rating.reason,
        "price_book": rating.book_version,
        "plan": agreed.plan,
        "plan_valid_from": agreed.plan_from,
        "customer_terms_from": agreed.own_from,
        "cost_usd": rating.cost_usd,
        "charge_nano_usd": charged.nano_usd if charged else None,
        "lines": [line.model_dump(mode="json") for line in rating.lines],
        "explanation": _explanation(rating, model, agreed),
    }
    return BilledReply(model, billed, charged, columns)


def response_chars(reply: Mapping[str, Any]) -> int:
    """Return the length of the reply: the characters of its text blocks.

    A reply of an unknown shape has none; it is recorded all the same, without a price.
    """
    content = reply.get("content")
    blocks = cast("list[object]", content) if isinstance(content, list) else []
    texts = [cast("dict[str, Any]", b).get("text") for b in blocks if isinstance(b, dict)]
    return sum(len(text) for text in texts if isinstance(text, str))


def _explanation(rating: Rating, model: str, agreed: TermsInForce) -> str:
    said = explain(rating)
    if rating.status != "priced":
        return said
    return f"{said} {typical_costs(model, rating.at, agreed.terms)}".rstrip()
