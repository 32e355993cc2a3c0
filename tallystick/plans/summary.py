"""A statement in plain words, for the person who pays (requirement 66).

What was used is told in pages and dollars; the tokens are in the lines. Amounts here are rounded
for reading, the exact ones stand beside them.
"""

from collections.abc import Iterator
from decimal import Decimal
from zoneinfo import ZoneInfo

from tallystick.money import total
from tallystick.plans.statement import (
    AllowanceUse,
    LineKind,
    Savings,
    Statement,
    TokensIncluded,
)
from tallystick.pricing import TokenKind, pages
from tallystick.pricing.explain import TOKENS_PER_PAGE, dollars

_TEXTS = {
    TokenKind.INPUT: "prompts",
    TokenKind.OUTPUT: "answers",
    TokenKind.CACHE_WRITE_5M: "prompts kept in the cache for 5 minutes",
    TokenKind.CACHE_WRITE_1H: "prompts kept in the cache for an hour",
    TokenKind.CACHE_READ: "prompts read from the cache",
}


def in_words(statement: Statement) -> tuple[str, ...]:
    """Say what the period came to, one sentence each."""
    return tuple(_sentences(statement))


def _sentences(statement: Statement) -> Iterator[str]:
    yield from _usage(statement)
    yield from _savings(statement.savings)
    if statement.history is not None and statement.history.resent_tokens:
        history = statement.history
        yield (
            f"{history.resent_percent} % of the prompts in conversations "
            f"({pages(history.resent_tokens)}) was history sent again, for "
            f"{dollars(history.resent_usd)}."
        )
    if statement.allowance is not None:
        yield from _allowance(statement.allowance)
    if statement.tiers is not None:
        yield from _either(
            statement.tiers.before_usd - statement.tiers.after_usd,
            "Volume prices took {} off.",
            "Volume prices added {}.",
        )
    if statement.commitment is not None and statement.commitment.true_up_usd:
        yield (
            f"Usage was agreed to come to at least {dollars(statement.commitment.committed_usd)}; "
            f"the missing {dollars(statement.commitment.true_up_usd)} is added."
        )
    yield from _either(
        _of(statement, "metering_correction"),
        "Too little was collected for earlier usage; {} is made up for.",
        "Too much was collected for earlier usage; {} comes back.",
    )
    if paid := _of(statement, "credits"):
        yield f"{dollars(paid)} was paid from credit."
    if statement.wallet is not None:
        yield f"The balance is {dollars(statement.wallet.closing_usd)}."
    yield from _either(
        _of(statement, "proration"),
        "The base fee grew by {} for the rest of the period.",
        "{} of the base fee comes back for the rest of the period.",
    )
    if fee := _of(statement, "base_fee"):
        which = "next" if statement.ordinal else "first"
        yield f"The base fee of the {which} period is {dollars(fee)}."
    yield _to_pay(statement.due_cents)


def _usage(statement: Statement) -> Iterator[str]:
    usage = statement.sections.get("usage")
    if usage is None:
        if statement.ordinal:
            yield f"Nothing was used {_span(statement)}."
    else:
        used = dict.fromkeys(TokenKind, 0)
        for line in usage.lines:
            used[line.kind] += line.quantity
        answer, searches = used.pop(TokenKind.OUTPUT), used.pop(TokenKind.WEB_SEARCH)
        requests = "1 request" if usage.records == 1 else f"{usage.records:,} requests"
        yield (
            f"{requests} {_span(statement)} came to {dollars(usage.charge_usd)}: the prompts were "
            f"{pages(sum(used.values()))} and the answers {pages(answer)} "
            f"({TOKENS_PER_PAGE} tokens a page)."
        )
        if searches:
            amount = total(
                line.charge_usd for line in usage.lines if line.kind == TokenKind.WEB_SEARCH
            )
            yield f"{_count(searches, 'web search', 'web searches')} cost {dollars(amount)} of it."
    if late := statement.sections.get("late_usage"):
        yield f"Usage of earlier periods that was recorded later adds {dollars(late.charge_usd)}."
    if adjusted := statement.sections.get("adjustments"):
        yield from _either(
            adjusted.charge_usd,
            "Corrections of earlier usage add {}.",
            "Corrections of earlier usage take {} off.",
        )
    if statement.unpriced:
        yield (
            f"{_count(statement.unpriced, 'request has', 'requests have')} no price yet and will "
            "be billed when the price is known."
        )


def _savings(saved: Savings) -> Iterator[str]:
    yield from _either(
        saved.cache_usd,
        "Caching saved {}.",
        "Keeping prompts in the cache cost {} more than reading them from it saved.",
    )
    if saved.batch_usd > 0:
        yield f"The batch price saved {dollars(saved.batch_usd)}."


def _allowance(use: AllowanceUse) -> Iterator[str]:
    if use.included_usd is not None:
        left = "none is left" if not use.left_usd else f"{dollars(use.left_usd)} is left"
        yield f"The plan includes {dollars(use.included_usd)} of usage, of which {left}."
    for each in use.tokens:
        yield _tokens(each)
    if use.overage_usd > 0:
        yield f"Usage beyond what the plan includes came to {dollars(use.overage_usd)}."


def _tokens(included: TokensIncluded) -> str:
    if included.kind == TokenKind.WEB_SEARCH:
        return f"The plan includes {included.included:,} web searches; {included.used:,} were made."
    came_to = f"they came to {pages(included.used)}" if included.used else "there were none"
    return f"The plan includes {_TEXTS[included.kind]} of {pages(included.included)}; {came_to}."


def _either(amount: Decimal, above: str, below: str) -> Iterator[str]:
    if amount > 0:
        yield above.format(dollars(amount))
    elif amount < 0:
        yield below.format(dollars(-amount))


def _to_pay(cents: int) -> str:
    amount = f"${abs(Decimal(cents).scaleb(-2)):,.2f}"
    if cents == 0:
        return "Nothing is to be paid."
    return f"To pay: {amount}." if cents > 0 else f"{amount} is given back."


def _of(statement: Statement, kind: LineKind) -> Decimal:
    return total(line.amount_usd for line in statement.lines if line.kind == kind)


def _span(statement: Statement) -> str:
    zone = ZoneInfo(statement.time_zone)
    start, end = (
        at.astimezone(zone).strftime("%Y-%m-%d")
        for at in (statement.period_start, statement.period_end)
    )
    return f"from {start} to {end}"


def _count(number: int, one: str, many: str) -> str:
    return f"1 {one}" if number == 1 else f"{number:,} {many}"
