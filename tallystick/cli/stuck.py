"""`tallystick stuck`: everything that waits, with what is known of it and what can be done."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from textwrap import TextWrapper
from typing import Annotated, Any

import typer
from temporalio.service import RPCError

from tallystick.cli import stuck_actions
from tallystick.cli.access import in_ledger
from tallystick.cli.output import JsonFlag, note, out, print_json, print_rows
from tallystick.errors import UnavailableError
from tallystick.ledger import operator_actions
from tallystick.ledger.database import Transaction
from tallystick.ledger.operator_tables import OperatorAction
from tallystick.ledger.waiting import Waiting, waiting
from tallystick.stuck import (
    Stuck,
    by_money,
    known_to_temporal_alone,
    with_temporal,
    without_temporal,
)
from tallystick.temporal import connect_temporal

_MOST_ACTIONS = 100
"""Of those that --all shows."""

_stuck = typer.Typer(help="Show everything that waits, and retry, correct or skip it.")
stuck_actions.register(_stuck)


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.add_typer(_stuck, name="stuck")


@_stuck.callback(invoke_without_command=True)
def stuck(
    context: typer.Context,
    minutes: Annotated[int, typer.Option(help="Ignore what is younger than this.")] = 5,
    limit: Annotated[
        int, typer.Option(help="Show so many, those with the most money first.", min=1)
    ] = 50,
    actions: Annotated[
        bool, typer.Option("--all", help="Also show what operators have done about such things.")
    ] = False,
    as_json: bool = JsonFlag,
) -> None:
    """Show everything that waits: requests, batches, accounts, prices, meter events, payments,
    differences. Exits 0 either way.

    By money at stake, then by age. Without Temporal the ledger alone is asked.
    """
    if context.invoked_subcommand:
        return
    now = datetime.now(UTC)
    older_than = now - timedelta(minutes=minutes)

    async def read(tx: Transaction) -> tuple[Sequence[Waiting], list[OperatorAction]]:
        done = await operator_actions.newest(tx, _MOST_ACTIONS) if actions else []
        return await waiting(tx, older_than=older_than), done

    known, done = in_ledger(read)
    found, of = asyncio.run(_joined(known, older_than, limit))
    if as_json:
        shown = [_as_dict(row, now) for row in found]
        print_json(
            {"stuck": shown, "actions": [each.model_dump() for each in done]} if actions else shown
        )
    else:
        _show(found, now)
        if actions:
            _show_actions(done)
    if of > len(found):
        note(f"{of - len(found):,} more are not shown; --limit shows more")


async def _joined(
    known: Sequence[Waiting], older_than: datetime, limit: int
) -> tuple[list[Stuck], int]:
    """Return the first rows, joined with what Temporal knows, and how many there are."""
    try:
        client = await connect_temporal()
        alone = await known_to_temporal_alone(client, known, older_than=older_than)
        rows = by_money([*known, *alone])
        return await with_temporal(client, rows[:limit]), len(rows)
    except (UnavailableError, RPCError) as error:
        note(f"only the ledger was asked: {error}")
        return without_temporal(by_money(known)[:limit]), len(known)


def _show(rows: Sequence[Stuck], now: datetime) -> None:
    if not rows:
        note("nothing is stuck")
        return
    print_rows(
        ("#", "what", "name", "age", "tries", "at stake $"),
        [
            (number, row.what, row.subject, _age(row.since, now), row.attempts, row.at_stake_usd)
            for number, row in enumerate(rows, start=1)
        ],
    )
    typer.echo()
    margin = len(str(len(rows))) + 2
    why = TextWrapper(
        out.width, subsequent_indent=" " * margin, break_long_words=False, break_on_hyphens=False
    )
    for number, row in enumerate(rows, start=1):
        typer.echo(why.fill(f"{number:<{margin}}{row.why}"))
        for way in row.remedy.split("; "):
            # Not wrapped: a command that is copied has to be in one piece.
            typer.echo(f"{'':<{margin}}-> {way}")


def _show_actions(done: Sequence[OperatorAction]) -> None:
    print_rows(
        ("at", "by", "action", "name"),
        [(each.at, each.by, each.action, each.subject) for each in done],
        title="What operators have done",
    )
    print_rows(("reason", "what came of it"), [(each.reason, each.outcome) for each in done])


def _age(since: datetime, now: datetime) -> str:
    age = now - since
    if age.days:
        return f"{age.days}d{age.seconds // 3600:02}h"
    return str(age).split(".")[0]


def _as_dict(row: Stuck, now: datetime) -> dict[str, Any]:
    return {**asdict(row), "age_seconds": int((now - row.since).total_seconds())}
