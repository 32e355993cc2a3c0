"""`tallystick reconcile apply` and `dismiss`: what a person decides about a difference."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tallystick.cli.access import in_ledger, with_ledger
from tallystick.cli.output import JsonFlag, fail, note, print_json
from tallystick.cli.reconcile_show import LEFT_OPEN, Number, existing_difference
from tallystick.ledger import discrepancies
from tallystick.ledger.database import Ledger, Transaction
from tallystick.ledger.reconciliation_tables import Discrepancy, DiscrepancyState
from tallystick.services import endpoints
from tallystick.settings import get_settings

if TYPE_CHECKING:
    from activities.repairs import AppliedRepair


def apply(
    number: Number,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, say what would be.")] = False,
    as_json: bool = JsonFlag,
) -> None:
    """Do what is proposed about a difference; without --yes only say what that would be.

    Exits 1 when something of it was refused or has to wait.
    """
    applied = with_ledger(lambda ledger: _apply(ledger, number, dry_run=not yes))
    if as_json:
        print_json(_as_dict(applied, dry_run=not yes))
    else:
        _tell(applied, dry_run=not yes)
    if yes and any(each.outcome != "done" and not each.earlier for each in applied.subjects):
        raise typer.Exit(1)


def dismiss(
    number: Number,
    reason: Annotated[str, typer.Option(help="Why it is left as it is; kept with it.")],
) -> None:
    """Leave a difference as it is, for a reason that is kept in its history.

    It is looked at again only once its amounts are others.
    """
    if not reason.strip():
        fail("--reason: say why it is left as it is")

    async def leave(tx: Transaction) -> Discrepancy:
        found = await existing_difference(tx, number, locked=True)
        if found.state not in LEFT_OPEN:
            fail(f"ID: difference {number} is {found.state}; there is nothing to be left open")
        words = f"an operator leaves it as it is: {reason.strip()}"
        await discrepancies.change_state(
            tx, found, DiscrepancyState.DISMISSED, words, at=datetime.now(UTC)
        )
        return found

    in_ledger(leave)
    note(f"difference {number} is dismissed; `tallystick reconcile show {number}` says why")


async def _apply(ledger: Ledger, number: int, *, dry_run: bool) -> "AppliedRepair":
    from activities.repairs import Repairs
    from activities.stripe_clients import stripe_client
    from activities.stripe_meters import meter_transport

    settings = get_settings()
    async with ledger.begin() as tx:
        await existing_difference(tx, number)
    async with (
        endpoints(settings) as where,
        stripe_client(where, settings, ledger.url) as stripe,
        meter_transport(where, settings, ledger.url) as transport,
    ):
        repairs = Repairs(ledger, stripe, transport)
        return await repairs.apply(number, by="operator", dry_run=dry_run, now=datetime.now(UTC))


def _tell(applied: "AppliedRepair", *, dry_run: bool) -> None:
    note(applied.words)
    for each in applied.subjects:
        typer.echo(f"{each.outcome}{', before' if each.earlier else ''}: {each.words}")
    if not dry_run:
        note(f"difference {applied.discrepancy_id} is {applied.state}")
    elif any(each.outcome == "ready" for each in applied.subjects):
        note("nothing is done; --yes does it")


def _as_dict(applied: "AppliedRepair", *, dry_run: bool) -> dict[str, Any]:
    return {
        "discrepancy_id": applied.discrepancy_id,
        "dry_run": dry_run,
        "repair": applied.repair,
        "state": applied.state,
        "words": applied.words,
        "subjects": [
            {
                "subject": each.subject,
                "outcome": each.outcome,
                "words": each.words,
                "at": each.at,
                "before": each.earlier,
            }
            for each in applied.subjects
        ],
        "calls": applied.calls,
    }
