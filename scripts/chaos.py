"""The chaos drill: `scripts/chaos.py --help`, after `scripts/setup`.

A steady load of requests, while workers, Temporal and PostgreSQL are killed and Claude and Stripe
fail in every way that their stand-ins know. It ends with a table; standard output carries that, or
with `--json` one object, and everything said on the way goes to standard error. The exit code is 0
only if nothing was lost, billed twice or by half, every call of Claude is accounted for, and, in a
drill of 20 minutes or more, the memory of a worker that was spared stayed flat: its median in the
last quarter at most 5 % above that in the second (`chaos_parts.memory`).
"""

import asyncio
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from chaos_parts.drill import drill
from chaos_parts.outcome import Order, Outcome
from chaos_parts.show import (
    err,
    print_circumstances,
    print_judgement,
    print_totals,
    print_verdicts,
    view,
)
from one_command import fresh_folder, run_command, stop_in_order
from temporalio.runtime import LoggingConfig, Runtime, TelemetryConfig, TelemetryFilter

from tallystick.errors import TallystickError

_NOT_OURS = ("ANTHROPIC_", "STRIPE_", "TEMPORAL_", "DATABASE_", "TALLYSTICK_SANDBOX")
"""Variables that name somebody's real system: none of a drill's business."""


def chaos(
    minutes: Annotated[float, typer.Option(help="How long the load lasts.", min=0.1)] = 10,
    seed: Annotated[int, typer.Option(help="What is asked, what dies and what fails.")] = 1,
    rate: Annotated[float, typer.Option(help="Requests a second.", min=0.1)] = 5,
    saturate: Annotated[
        int | None,
        typer.Option(help="Keep so many requests open instead: as many as get through.", min=1),
    ] = None,
    workers: Annotated[int, typer.Option(help="How many; one of them is spared.", min=2)] = 3,
    baseline: Annotated[bool, typer.Option(help="The naive pattern beside it.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Break everything under load, and count what became of each request."""
    for name in [name for name in os.environ if name.startswith(_NOT_OURS)]:
        del os.environ[name]
    _quiet()
    order = Order(
        seed=seed,
        seconds=minutes * 60,
        rate=rate,
        workers=workers,
        saturate=saturate,
        baseline=baseline,
    )
    err.print("starting PostgreSQL, Temporal, stand-ins for Claude and Stripe, and workers")
    with fresh_folder("tallystick-chaos-") as home:
        outcome = asyncio.run(_run(order, home))
        if as_json:
            typer.echo(json.dumps({"order": asdict(order), **outcome.as_json()}))
        else:
            print_totals(outcome.product.totals)
            print_verdicts(outcome.product, outcome.naive)
            print_circumstances(outcome)
            print_judgement(outcome.product, order.repeated())
        if not outcome.product.holds:
            raise TallystickError("the promises do not hold")
        if not outcome.holds:
            raise TallystickError("the worker's memory grows")


async def _run(order: Order, home: Path) -> Outcome:
    stop_in_order()
    async with drill(order, home) as running:
        with view(order.seconds) as shown:
            return await running.run(shown)


def _quiet() -> None:
    """Have Temporal's SDK log errors alone: that a server is away is what is wanted here."""
    logging = LoggingConfig(TelemetryFilter(core_level="ERROR", other_level="ERROR"))
    Runtime.set_default(Runtime(telemetry=TelemetryConfig(logging=logging)))


if __name__ == "__main__":
    run_command(chaos)
