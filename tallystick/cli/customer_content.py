"""`tallystick customer content`: whether, and how long, what is said in its requests is kept."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import Id, existing
from tallystick.cli.operators import By, operator
from tallystick.cli.output import JsonFlag, fail, note, print_json, print_rows
from tallystick.contracts import cycle_workflow_id
from tallystick.ledger import batch_results, contents, operator_actions
from tallystick.ledger.content_tables import ContentTerms
from tallystick.ledger.contents import MAX_DAYS
from tallystick.ledger.database import Transaction
from tallystick.ledger.operator_actions import Decision


def register(app: typer.Typer) -> None:
    """Add the command to `tallystick customer`."""
    app.command()(content)


def content(
    customer: Id,
    days: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_DAYS, help="Keep it for so many days, from the next request."),
    ] = None,
    off: Annotated[
        bool, typer.Option("--off", help="Keep no more; what is kept goes at its date.")
    ] = False,
    erase: Annotated[
        bool,
        typer.Option(
            "--erase", help="Remove at once all that is kept, and the results of batch jobs."
        ),
    ] = False,
    by: By = "",
    as_json: bool = JsonFlag,
) -> None:
    """Show what is kept of prompts and replies, or with options: keep them, stop, or erase them.

    Nothing is kept unless it is switched on here.
    """
    if off and days is not None:
        fail("--off: leaves no days to keep anything for")
    if off or erase or days is not None:
        erased = in_ledger(lambda tx: _decide(tx, customer, days, by, off=off, erase=erase))
        if erase:
            note(
                f"requests whose content is removed: {erased:,}; what is under way, and Temporal's "
                "histories until its retention has passed, hold what was said"
            )
    rows, facts = in_ledger(lambda tx: _shown(tx, customer))
    if as_json:
        print_json(
            {**facts, "decisions": [row.model_dump(exclude={"customer_id"}) for row in rows]}
        )
        return
    note(f"customer {customer!r}: {in_words(facts)}")
    if rows:
        cells = [(row.valid_from, row.days, row.erases) for row in rows]
        print_rows(("from", "kept for days", "erased before"), cells)


async def as_facts(tx: Transaction, customer: str) -> dict[str, Any]:
    """Return for how many days content is kept, of how many requests it is, and until when."""
    rows, kept = await contents.decisions(tx, customer), await contents.kept(tx, customer)
    return {
        "days": rows[-1].days if rows else None,
        "requests": kept.requests,
        "last_goes_at": kept.last_goes_at,
    }


def in_words(facts: Mapping[str, Any]) -> str:
    """Put what `as_facts` returns in one line."""
    words = "not kept" if facts["days"] is None else f"kept for {facts['days']:,} days"
    if facts["requests"]:
        last = facts["last_goes_at"].astimezone(UTC)
        words += f"; requests kept: {facts['requests']:,}, the last until {last:%Y-%m-%d}"
    return words


async def _decide(
    tx: Transaction, customer: str, days: int | None, by: str, *, off: bool, erase: bool
) -> int:
    await existing(tx, customer)
    if days is None and not off:  # erased alone: kept as before
        rows = await contents.decisions(tx, customer)
        days = rows[-1].days if rows else None
    erased = await contents.decide(tx, customer, days, erase=erase)  # locks first, as all who keep
    if erase:
        fetched = await batch_results.erase(tx, customer)
        decision = Decision(
            by=operator(by),
            action="erase",
            subject=cycle_workflow_id(customer),
            customer_id=customer,
            reason=None,
            at=datetime.now(UTC),
        )
        words = f"content removed of requests: {erased:,}; results of batch jobs: {fetched:,}"
        await operator_actions.enter(tx, decision, words)
    return erased


async def _shown(
    tx: Transaction, customer: str
) -> tuple[Sequence[ContentTerms], Mapping[str, Any]]:
    await existing(tx, customer)
    return await contents.decisions(tx, customer), await as_facts(tx, customer)
