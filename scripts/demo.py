"""Runs the demo: `scripts/demo` makes the environment and calls this.

Standard output carries the result, a table or with `--json` one object; everything said on the way
goes to standard error. The exit code is 0 only if the records tally.
"""

import asyncio
import json
import signal
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from demo_parts import (
    batched_documents,
    billed_requests,
    closed_periods,
    faults,
    reconciled_day,
)
from demo_parts.batched_documents import Batched
from demo_parts.billed_requests import Result
from demo_parts.closed_periods import Closed
from demo_parts.documents import Document, read_documents
from demo_parts.reconciled_day import Mended
from demo_parts.show import (
    err,
    out,
    print_mended,
    print_statement,
    print_tally,
    print_verdict,
)
from demo_parts.stage import Stage, stage
from one_command import fresh_folder, run_command, stop_in_order

from tallystick.errors import TallystickError
from tallystick.settings import Settings, get_settings


def demo(
    requests: Annotated[int, typer.Option(help="How many requests to send.", min=1)] = 60,
    documents: Annotated[
        Path | None,
        typer.Option(help="A folder of .txt and .md files to ask about.", file_okay=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
    keep: Annotated[bool, typer.Option(help="Leave everything up until Ctrl-C.")] = False,
) -> None:
    """Start everything, send requests while things break, and lay the three records together."""
    texts, settings = read_documents(documents), get_settings()
    err.print("starting PostgreSQL, Temporal, " + _services(settings.sandboxed) + " and a worker")
    with fresh_folder("tallystick-demo-") as home:
        tallies = asyncio.run(
            _play(settings, home, requests=requests, texts=texts, as_json=as_json, keep=keep)
        )
        if not tallies:
            raise TallystickError("the records do not tally")


async def _play(
    settings: Settings,
    home: Path,
    *,
    requests: int,
    texts: list[Document],
    as_json: bool,
    keep: bool,
) -> bool:
    stop_in_order()
    began = datetime.now(UTC)
    async with stage(settings, home) as on:
        err.print(f"Temporal's Web UI: {on.local.temporal.ui_url}")
        result = await billed_requests.run(on, requests, texts)
        if not as_json:
            _print_tally(result)
        batched: Batched | None = None
        if {"claude", "stripe"} <= on.local.sandboxed:
            batched = await batched_documents.run(on, texts, settings)
            if not as_json:
                _print_batched(batched)
        else:
            err.print("a real batch takes up to a day: none is sent")
        closed: list[Closed] = []
        if "stripe" in on.local.sandboxed:
            closed = await closed_periods.run(on)
        else:
            err.print("a real Stripe's clock cannot be moved on: no period is closed")
        if not as_json:
            _print_statements(closed)
        mended: Mended | None = None
        if {"claude", "stripe"} <= on.local.sandboxed:
            mended = await reconciled_day.run(on, began)
            if not as_json:
                out.print()
                print_mended(mended.seen, agrees=mended.agrees)
        else:
            err.print("a real hour has to be over first: `tallystick reconcile` compares it then")
        if as_json:
            _print_json(result, batched, closed, mended)
        if keep:
            await _stay(on, result)
    acts = [each for each in (batched, *closed, mended) if each is not None]
    return not result.tally.differences() and all(each.agrees for each in acts)


def _services(sandboxed: frozenset[str]) -> str:
    if not sandboxed:
        return "no stand-ins (both keys are set: real calls, real money)"
    return "stand-ins for " + " and ".join(name.capitalize() for name in sorted(sandboxed))


def _print_json(
    result: Result, batched: Batched | None, closed: list[Closed], mended: Mended | None
) -> None:
    shown = {
        **result.tally.as_json(),
        "faults": result.applied,
        "seconds": round(result.seconds, 1),
        "batch": batched and batched.as_json(),
        "statements": [each.as_json() for each in closed],
        "reconciliation": mended and mended.as_json(),
    }
    typer.echo(json.dumps(shown))


def _print_tally(result: Result) -> None:
    out.print()
    print_tally(result.tally)
    out.print(faults.in_words(result.applied))
    print_verdict(result.tally)


def _print_batched(batched: Batched) -> None:
    out.print()
    out.print(batched.in_words())
    print_tally(batched.tally)
    out.print(faults.in_words(batched.applied))
    print_verdict(batched.tally)


def _print_statements(closed: list[Closed]) -> None:
    for each in closed:
        out.print()
        print_statement(each.statement, each.invoices, agrees=each.agrees)


async def _stay(on: Stage, result: Result) -> None:
    """Leave everything up, and say what is worth a look."""
    on.local.leave_note()
    busiest = max(result.records, key=lambda record: record["attempts"])
    ui = f"{on.local.temporal.ui_url}/namespaces/default/workflows"
    workflow = f"claude-request%2F{busiest['customer_id']}%2F{busiest['request_id']}"
    for line in (
        "",
        f"all requests              {ui}",
        f"one called {busiest['attempts']} times        {ui}/{workflow}",
        f"one customer's            {ui}?query=CustomerId%3D%22{busiest['customer_id']}%22",
        "",
        "in another terminal:",
        f"  export TALLYSTICK_HOME={on.local.home}",
        "  .venv/bin/tallystick usage",
        f"  .venv/bin/tallystick ledger export --customer {busiest['customer_id']}",
        f"  .venv/bin/tallystick request {busiest['customer_id']} 'What is a tally stick?'",
        "",
        "Ctrl-C stops everything and removes the data.",
    ):
        err.print(line, markup=False)
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()


if __name__ == "__main__":
    run_command(demo)
