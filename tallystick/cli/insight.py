"""`tallystick conversation` and `explain`: what re-sent history costs, and why a bill has grown."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import Id, existing
from tallystick.cli.instants import Span, read_span
from tallystick.cli.output import JsonFlag, fail, note, out, print_json, print_rows
from tallystick.insight import Comparison, FollowedTurn, Turn, compare, follow, history_of
from tallystick.insight.shares import take_apart
from tallystick.insight.turns import to_nano
from tallystick.ledger import turns
from tallystick.ledger.database import Transaction
from tallystick.money import plain
from tallystick.pricing.explain import dollars


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.command()(conversation)
    app.command()(explain)


def conversation(
    customer: Id,
    name: Annotated[str, typer.Argument(metavar="ID", help="The conversation's id.")],
    as_json: bool = JsonFlag,
) -> None:
    """Show a conversation turn by turn: how much of each prompt was history, sent again."""

    async def read(tx: Transaction) -> list[Turn]:
        await existing(tx, customer)
        return await turns.conversation(tx, customer, name)

    followed = follow(in_ledger(read))
    if not followed:
        fail(f"ID: customer {customer!r} has no conversation {name!r}")
    summary = history_of(followed)
    if as_json:
        shown = {
            **asdict(summary),
            "resent_percent": summary.resent_percent,
            "explanation": summary.in_words(),
            "turns": [_turn(each) for each in followed],
        }
        print_json({"customer_id": customer, "conversation_id": name, **shown})
        return
    out.print(f"{summary.in_words()}.", highlight=False, soft_wrap=True)
    columns = (
        "served", "request", "model", "prompt", "re-sent", "from cache", "answer", "charge $",
    )  # fmt: skip
    print_rows(columns, [_cells(each) for each in followed])
    for each in followed:
        if each.miss:
            note(f"{each.turn.request_id}: {each.miss.in_words()}")


def _cells(each: FollowedTurn) -> tuple[Any, ...]:
    turn = each.turn
    return (
        turn.served_at,
        turn.request_id,
        turn.model,
        turn.tokens.prompt,
        each.resent_tokens,
        turn.tokens.cache_read,
        turn.tokens.output,
        turn.charge_usd,
    )


def _turn(each: FollowedTurn) -> dict[str, Any]:
    turn, miss = each.turn, each.miss
    return {
        "request_id": turn.request_id,
        "served_at": turn.served_at,
        "model": turn.model,
        **{f"{kind}_tokens": count for kind, count in turn.tokens.by_kind().items()},
        "prompt_tokens": turn.tokens.prompt,
        "resent_tokens": each.resent_tokens,
        "resent_usd": to_nano(take_apart(each).money("history")),
        "cost_usd": turn.cost_usd,
        "charge_usd": turn.charge_usd,
        "cache_miss": miss
        and {
            "tokens": miss.tokens,
            "cause": miss.cause,
            "extra_usd": miss.extra_usd,
            "explanation": miss.in_words(),
        },
    }


def explain(
    customer: Id,
    start: Annotated[str, typer.Option("--from", help="The first instant or date, in UTC.")],
    end: Annotated[
        str, typer.Option("--to", help="The instant or date to stop before; now by default.")
    ] = "",
    against_start: Annotated[
        str, typer.Option("--against-from", help="Compare with the time from here on.")
    ] = "",
    against_end: Annotated[
        str, typer.Option("--against-to", help="Compare up to here; --from by default.")
    ] = "",
    as_json: bool = JsonFlag,
) -> None:
    """Explain why a customer's period cost more or less than another, to the last fraction.

    Compared with as long a time right before it, unless --against-from names another.
    """
    span = read_span(start, end)
    if against_end and not against_start:
        fail("--against-to: needs --against-from too")
    against = (
        read_span(
            against_start,
            against_end or span.start.isoformat(),
            ("--against-from", "--against-to"),
        )
        if against_start
        else Span(span.start - (span.end - span.start), span.start)
    )

    async def read(tx: Transaction) -> tuple[list[FollowedTurn], list[FollowedTurn]]:
        await existing(tx, customer)
        return await _followed(tx, customer, against), await _followed(tx, customer, span)

    before, after = in_ledger(read)
    compared = compare(before, after)
    if as_json:
        print_json(
            {
                "customer_id": customer,
                "against": {"from": against.start, "to": against.end},
                "period": {"from": span.start, "to": span.end},
                **_as_dict(compared),
            }
        )
        return
    _show(compared, against, span)
    note(f"{_days(span)}: {history_of(after).in_words()}")


async def _followed(tx: Transaction, customer: str, span: Span) -> list[FollowedTurn]:
    served = await turns.served(tx, customer, *span)
    under_way = {turn.conversation_id for turn in served if turn.conversation_id}
    return follow(served, await turns.last_before(tx, customer, under_way, span.start))


def _show(compared: Comparison, against: Span, span: Span) -> None:
    difference = compared.difference_usd
    changed = (
        f"{dollars(abs(difference))} {'more' if difference > 0 else 'less'} than"
        if difference
        else "as much as"
    )
    out.print(
        f"{_days(span)} cost {dollars(compared.after_usd)} in {compared.after_calls:,} calls, "
        f"{changed} {_days(against)} with {dollars(compared.before_usd)} in "
        f"{compared.before_calls:,} calls.",
        highlight=False,
        soft_wrap=True,
    )
    if compared.causes:
        rows: Sequence[Sequence[Any]] = [
            *((cause.in_words, cause.amount_usd) for cause in compared.causes),
            ("together", difference),
        ]
        print_rows(("why", "$"), rows)
    if compared.unpriced:
        note(f"{compared.unpriced:,} calls without a price are left out; see `tallystick stuck`")


def _as_dict(compared: Comparison) -> dict[str, Any]:
    return {
        **asdict(compared),
        "difference_usd": compared.difference_usd,
        "causes": [
            {"cause": each.cause, "words": each.in_words, "amount_usd": plain(each.amount_usd)}
            for each in compared.causes
        ],
    }


def _days(span: Span) -> str:
    whole = all(each.time().isoformat() == "00:00:00" for each in span)
    form = "%Y-%m-%d" if whole else "%Y-%m-%d %H:%M"
    return f"{span.start:{form}} to {span.end:{form}}"
