"""`tallystick reconcile show`: what differs, and all that is known of one difference."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer

from tallystick.cli.access import in_ledger
from tallystick.cli.customer_terms import existing
from tallystick.cli.instants import read_span
from tallystick.cli.output import JsonFlag, fail, note, print_json, print_rows
from tallystick.ledger import discrepancies, reconciliations, tally_hours
from tallystick.ledger.database import Transaction
from tallystick.ledger.reconciliation_tables import (
    Discrepancy,
    DiscrepancyEvent,
    DiscrepancyState,
    Repair,
)
from tallystick.reconciling.findings import Cause, Pair
from tallystick.reconciling.intervals import DAY, HOUR, whole_hour
from tallystick.reconciling.words import (
    CAUSES,
    CLAUDE_STATES,
    PAIRS,
    SHORT_PAIRS,
    how_much,
    when,
)
from tallystick.tally_report.page import Seen, as_html, repair_in_words
from tallystick.tally_report.series import SIDES, exact_amount, series_of, title

SHOWN_RUNS = 20
SHOWN_BY_DEFAULT = 7 * DAY
LEFT_OPEN = (DiscrepancyState.OPEN, DiscrepancyState.REPAIRED)
"""Where something is still to be seen or decided."""

Number = Annotated[int, typer.Argument(metavar="ID", help="The number of a difference.", min=1)]


def show(
    number: Annotated[
        int | None,
        typer.Argument(metavar="ID", help="The number of one difference; all of them if left out."),
    ] = None,
    start: Annotated[
        str, typer.Option("--from", help="The first hour, in UTC; a week ago by default.")
    ] = "",
    end: Annotated[str, typer.Option("--to", help="The hour to stop before; now.")] = "",
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    unsettled: Annotated[
        bool, typer.Option("--open", help="Only what is neither settled nor explained.")
    ] = False,
    html: Annotated[
        Path | None, typer.Option(help="Write a page with plots of the records to this file.")
    ] = None,
    as_json: bool = JsonFlag,
) -> None:
    """Show to what the records differ, or with ID all that is known of one difference."""
    if number is not None:
        _show_one(in_ledger(lambda tx: _known(tx, number)), as_json=as_json)
        return
    now = datetime.now(UTC)
    span = read_span(start or (whole_hour(now) - SHOWN_BY_DEFAULT).isoformat(), end)
    first, last = whole_hour(span.start), whole_hour(span.end - timedelta.resolution) + HOUR

    async def look(tx: Transaction) -> Seen:
        if customer:
            await existing(tx, customer)
        return await read(tx, first, last, customer_id=customer or None, unsettled=unsettled)

    seen = in_ledger(look)
    if html is not None:
        _write(html, as_html(seen, now))
    if as_json:
        print_json(as_dict(seen))
    elif html is None:
        _show_all(seen)


async def read(
    tx: Transaction,
    start: datetime,
    end: datetime,
    *,
    customer_id: str | None = None,
    unsettled: bool = False,
) -> Seen:
    """Return what reconciliation knows of [start, end)."""
    found = [
        each
        async for each in discrepancies.find(
            tx, start=start, end=end, customer_id=customer_id, unsettled=unsettled
        )
    ]
    return Seen(
        start=start,
        end=end,
        hours=await tally_hours.between(tx, start, end),
        runs=await reconciliations.latest(tx, SHOWN_RUNS, start=start, end=end),
        discrepancies=found,
        repairs={
            each.discrepancy_id: await discrepancies.repairs_of(tx, each.discrepancy_id)
            for each in found
            if each.discrepancy_id is not None
        },
    )


# --- All of a span --------------------------------------------------------------------------------
def _show_all(seen: Seen) -> None:
    print_totals(seen)
    print_differences(seen)
    if not seen.discrepancies:
        note("nothing differs that was looked for")
    if seen.runs:
        run = seen.runs[0]
        state = CLAUDE_STATES.get(run.claude_state or "", "under way")
        note(f"last run: {run.kind}, over {when(run.start_at, run.end_at)}; {state}")
    else:
        note("no run has looked at these hours; `tallystick reconcile` starts one")


def print_totals(seen: Seen) -> None:
    """Print what each record says of the span, unit by unit."""
    drawn = series_of(seen.hours, seen.start, seen.end)
    if drawn:
        print_rows(
            ("", *SIDES.values()),
            [
                (
                    series.title,
                    *(
                        None if known is None else exact_amount(series.unit, known)
                        for known in (series.total(side) for side in SIDES)
                    ),
                )
                for series in drawn
            ],
            title=f"What was compared, {when(seen.start, seen.end)}",
        )


def print_differences(seen: Seen) -> None:
    """Print a line for each difference; below them what is open, and what was done about each."""
    if not seen.discrepancies:
        return
    print_rows(
        ("no.", "when", "between", "customer", "by", "cause", "state"),
        [
            (
                str(each.discrepancy_id),
                when(each.start_at, each.end_at),
                SHORT_PAIRS[Pair(each.pair)],
                each.customer_id,
                how_much(each.tokens, each.usd),
                CAUSES[Cause(each.cause)],
                each.state,
            )
            for each in seen.discrepancies
        ],
        title="Differences",
    )
    for each in seen.discrepancies:
        if each.state in LEFT_OPEN:
            typer.echo(f"No. {each.discrepancy_id}, {each.state}: {each.words}")
        for repair in seen.repairs.get(each.discrepancy_id or 0, ()):
            typer.echo(f"No. {each.discrepancy_id}, repair: {repair_in_words(repair)}")


def as_dict(seen: Seen) -> dict[str, Any]:
    """Return all of it as JSON."""
    return {
        "from": seen.start,
        "to": seen.end,
        "compared": {
            series.unit: {
                side: known for side in SIDES if (known := series.total(side)) is not None
            }
            for series in series_of(seen.hours, seen.start, seen.end)
        },
        "runs": [run.model_dump(exclude={"run"}) for run in seen.runs],
        "differences": [
            _one_as_dict(each, seen.repairs[each.discrepancy_id])
            for each in seen.discrepancies
            if each.discrepancy_id is not None
        ],
    }


def _one_as_dict(found: Discrepancy, repairs: Sequence[Repair]) -> dict[str, Any]:
    # Its state is text, as it was read.
    return {
        **found.model_dump(warnings=False),
        "repairs": [repair.model_dump() for repair in repairs],
    }


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        fail(f"--html: {str(path)!r} cannot be written: {error.strerror}")
    note(f"written to {path}")


# --- One of them ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Known:
    found: Discrepancy
    history: Sequence[DiscrepancyEvent]
    repairs: Sequence[Repair]


async def existing_difference(tx: Transaction, number: int, *, locked: bool = False) -> Discrepancy:
    """Return the difference of that number, or say that there is none."""
    found = await discrepancies.get(tx, number, locked=locked)
    if found is None:
        fail(f"ID: there is no difference {number}; `tallystick reconcile show` lists them")
    return found


async def _known(tx: Transaction, number: int) -> _Known:
    return _Known(
        await existing_difference(tx, number),
        await discrepancies.history(tx, number),
        await discrepancies.repairs_of(tx, number),
    )


def _show_one(known: _Known, *, as_json: bool) -> None:
    found = known.found
    if as_json:
        history = [event.model_dump() for event in known.history]
        print_json({**_one_as_dict(found, known.repairs), "history": history})
        return
    proposal: Mapping[str, Any] = found.proposal or {}
    number = found.discrepancy_id
    rows: list[tuple[str, Any]] = [
        ("state", found.state),
        ("between", PAIRS[Pair(found.pair)]),
        ("when", when(found.start_at, found.end_at)),
        *((name.replace("_", " "), value) for name, value in found.place.items()),
        ("by", how_much(found.tokens, found.usd)),
        ("cause", CAUSES[Cause(found.cause)]),
        ("what is known", found.words),
    ]
    if proposal:
        how = (
            "done by itself" if proposal["automatic"] else f"`tallystick reconcile apply {number}`"
        )
        rows.append(("what can be done", f"{proposal['words']} ({how})"))
    print_rows((f"difference {number}", ""), rows)
    sides = sorted({side for of_unit in found.amounts.values() for side in of_unit})
    print_rows(
        ("", *sides),
        [
            (title(unit), *(_amount(unit, of_unit.get(side)) for side in sides))
            for unit, of_unit in found.amounts.items()
        ],
        title="What each record says",
    )
    if found.requests:
        columns = list(dict.fromkeys(name for each in found.requests for name in each))
        print_rows(
            [name.replace("_", " ") for name in columns],
            [[each.get(name) for name in columns] for each in found.requests],
            title="Narrowed to",
        )
    if known.repairs:
        print_rows(
            ("begun", "repair"),
            [(repair.begun_at, repair_in_words(repair)) for repair in known.repairs],
            title="Repairs",
        )
    print_rows(
        ("at", "state", "what was seen or done"),
        [(event.at, event.state, event.words) for event in known.history],
        title="History",
    )


def _amount(unit: str, value: Any) -> Any:
    return exact_amount(unit, value) if isinstance(value, int) else value
