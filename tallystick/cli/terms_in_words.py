"""The terms of a plan or a customer in one line, for tables."""

from collections.abc import Iterator, Mapping
from typing import Any

from tallystick.plans import PlanTerms


def in_words(agreed: Mapping[str, Any]) -> str:
    """Put what replies are charged by in one line; the terms are as the ledger has them."""
    words = [f"{name} {agreed[name]}" for name in ("markup", "discount") if agreed.get(name)]
    kinds: Mapping[str, str] = agreed.get("markup_by_kind") or {}
    words += [f"markup {fraction} on {kind}" for kind, fraction in kinds.items()]
    return ", ".join(words) or "as the plan"


def plan_in_words(terms: PlanTerms) -> str:
    """Put all terms of a plan in one line, leaving out what it has none of."""
    return ", ".join([terms.model, *_replies(terms), *_periods(terms), *_payments(terms)])


def _replies(terms: PlanTerms) -> Iterator[str]:
    own = {"markup", "markup_by_kind", "discount"}
    data = terms.model_dump(mode="json", include=own, exclude_defaults=True)
    yield in_words(data) if data else "at cost"


def _periods(terms: PlanTerms) -> Iterator[str]:
    data = terms.model_dump(mode="json")
    if terms.base_fee_usd:
        yield f"base fee ${data['base_fee_usd']}"
    if terms.allowance is not None and terms.allowance.usd:
        yield f"${data['allowance']['usd']} of usage included"
    elif terms.allowance is not None:
        kinds = terms.allowance.tokens.items()
        yield " and ".join(f"{count:,} {kind} tokens" for kind, count in kinds) + " included"
    if terms.tiers is not None:
        brackets = [
            f"{each['factor']} {'up to $' + each['up_to_usd'] if each['up_to_usd'] else 'beyond'}"
            for each in data["tiers"]["brackets"]
        ]
        yield f"{terms.tiers.mode} tiers ({', '.join(brackets)})"
    if terms.commitment_usd:
        yield f"at least ${data['commitment_usd']} a period"
    if terms.spend_cap_usd is not None:
        yield f"spend cap ${data['spend_cap_usd']} a month"


def _payments(terms: PlanTerms) -> Iterator[str]:
    data = terms.model_dump(mode="json")
    if terms.low_balance_usd is not None:
        yield f"a balance under ${data['low_balance_usd']} is low"
    if terms.top_up is not None:
        top_up = data["top_up"]
        yield f"${top_up['amount_usd']} bought when it falls under ${top_up['below_usd']}"
    if terms.payment_terms_days:
        yield f"paid within {terms.payment_terms_days} days"
    yield f"grace of {terms.grace_days} days"
