"""`tallystick reconcile`: lay three records side by side by hand, and see to what differs.

The command itself starts a run and waits for it; what stands after it (`show`, `apply`, `dismiss`)
looks at differences that some run has found.
"""

import asyncio
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from tallystick.cli import reconcile_mending, reconcile_show
from tallystick.cli.access import in_ledger
from tallystick.cli.instants import read_instant
from tallystick.cli.output import JsonFlag, fail, note, print_json
from tallystick.cli.reconcile_run import run_by_hand
from tallystick.cli.reconcile_show import as_dict, print_differences, print_totals, read
from tallystick.contracts import ReconcileOrder, ReconcileProgress, ReconcileResult
from tallystick.reconciling.intervals import LOOK_BACK, Interval, interval_of, whole_hour
from tallystick.reconciling.words import CLAUDE_STATES
from tallystick.tally_report.page import Seen

_group = typer.Typer(help="Lay Claude's reports, the ledger and Stripe side by side.")
_group.command()(reconcile_show.show)
_group.command()(reconcile_mending.apply)
_group.command()(reconcile_mending.dismiss)


def register(app: typer.Typer) -> None:
    """Add the commands to the root."""
    app.add_typer(_group, name="reconcile")


@_group.callback(invoke_without_command=True)
def reconcile(
    ctx: typer.Context,
    start: Annotated[
        str, typer.Option("--from", help="The first whole hour, in UTC; 12 hours ago by default.")
    ] = "",
    end: Annotated[
        str, typer.Option("--to", help="The whole hour to stop before; the last that is over.")
    ] = "",
    as_json: bool = JsonFlag,
) -> None:
    """Compare the three records over hours that are over, and repair what is safe to repair.

    Exits 1 while something differs by more than is tolerated and is not settled, or a step failed.
    """
    if ctx.invoked_subcommand is not None:
        if start or end or as_json:
            fail(f"{ctx.invoked_subcommand}: options belong behind it")
        return
    hours = _hours(start, end)
    result, progress = asyncio.run(run_by_hand(hours))
    seen = in_ledger(lambda tx: read(tx, *hours))
    if as_json:
        print_json(_as_dict(result, progress, seen))
    else:
        _show(result, seen)
    if result.over_tolerance or result.failed:
        raise typer.Exit(1)


def _hours(start: str, end: str) -> Interval:
    now = datetime.now(UTC)
    last = read_instant(end, "--to") if end else whole_hour(now)
    first = read_instant(start, "--from") if start else last - LOOK_BACK
    order = ReconcileOrder(start=first, end=last)
    try:
        return interval_of(order, scheduled_at=None, now=now, compared_until=None)
    except ValueError as error:
        field, _, words = str(error).partition(": ")
        fail(f"{'--from' if field == 'start' else '--to'}: {words}")


def _show(result: ReconcileResult, seen: Seen) -> None:
    print_totals(seen)
    print_differences(seen)
    for name, why in result.failed.items():
        note(f"not done: {name}: {why}")
    if result.claude_state != "compared":
        note(CLAUDE_STATES[result.claude_state])
    note(
        f"{result.over_tolerance:,} of the differences are larger than is tolerated and not "
        "settled; `tallystick reconcile show ID` tells all of one"
        if result.over_tolerance
        else "nothing is left that differs by more than is tolerated"
    )


def _as_dict(result: ReconcileResult, progress: ReconcileProgress, seen: Seen) -> dict[str, Any]:
    return {**result.model_dump(mode="json"), "steps": progress.done, **as_dict(seen)}
