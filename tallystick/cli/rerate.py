"""`tallystick rerate`: a period priced again, the differences shown, booked and metered."""

import asyncio
from typing import Annotated, Any

import typer
from temporalio.service import RPCError

from tallystick.cli.access import in_ledger
from tallystick.cli.instants import read_span
from tallystick.cli.metering import Delivery, deliver
from tallystick.cli.output import JsonFlag, fail, note, print_json, print_rows
from tallystick.contracts import MeterOrder
from tallystick.errors import UnavailableError
from tallystick.ledger import adjustments
from tallystick.ledger.adjustments import NewAdjustment
from tallystick.money import from_nano_usd, plain
from tallystick.rerating import Rerating
from tallystick.rerating import rerate as price_again
from tallystick.temporal import connect_temporal


def register(app: typer.Typer) -> None:
    """Add the command to the root."""
    app.command()(rerate)


def rerate(
    start: Annotated[str, typer.Option("--from", help="The first instant or date, in UTC.")],
    end: Annotated[
        str, typer.Option("--to", help="The instant or date to stop before; now by default.")
    ] = "",
    customer: Annotated[str, typer.Option(help="Only this customer's.")] = "",
    book: Annotated[bool, typer.Option("--book", help="Book the differences.")] = False,
    wait: Annotated[
        float, typer.Option(help="Seconds to wait for Stripe; delivery goes on regardless.")
    ] = 30,
    as_json: bool = JsonFlag,
) -> None:
    """Price a period again with today's price book and show what differs.

    With --book the differences become adjustments. Usage that had no price is then metered; a
    difference to a price that was metered before belongs on the customer's next statement.
    """
    span, only = read_span(start, end), customer or None
    found = in_ledger(lambda tx: price_again(tx, *span, customer_id=only, booking=book))
    if not as_json:
        _show(found, booking=book)
    delivery = None
    if book:
        # Asked anew, so that a run that was cut short after booking is finished by the next.
        orders = in_ledger(lambda tx: adjustments.unmetered(tx, *span, only))
        delivery = _deliver(orders, wait)
    if as_json:
        print_json(_as_dict(found, delivery))
    elif delivery:
        _tell(delivery)


def _deliver(orders: list[MeterOrder], patience: float) -> Delivery:
    async def hand_over() -> Delivery:
        return await deliver(await connect_temporal(), orders, patience=patience)

    if not orders:
        return Delivery(0, (), 0)
    try:
        return asyncio.run(hand_over())
    except (UnavailableError, RPCError) as error:
        fail(
            f"the differences are booked, but {len(orders):,} requests are not handed to a worker "
            f"for metering: {error}; run the same command again"
        )


def _show(found: Rerating, *, booking: bool) -> None:
    rows = [
        (
            each.usage.key.customer_id,
            each.usage.key.request_id,
            each.usage.served_at,
            each.usage.model,
            each.cost_usd,
            from_nano_usd(each.charge_nano_usd),
            each.reason,
        )
        for each in found.differences
    ]
    if rows:
        columns = ("customer", "request", "served", "model", "cost $", "charge $", "why")
        print_rows(columns, rows, title=f"Differences to price book {found.price_book}")
    note(
        f"{found.records:,} records priced again: {len(rows):,} differ, by "
        f"${plain(found.cost_usd)} of cost and ${plain(found.charge_usd)} of charge"
    )
    for each in found.no_price:
        key = each.usage.key
        note(f"no price for {key.customer_id} {key.request_id}: {each.reason}")
    if booking:
        note(f"{found.booked:,} adjustments booked")
        if any(not each.first_price for each in found.differences):
            note(
                "differences to prices that were metered before are not metered: they belong on "
                "the customers' next statements"
            )
    elif rows:
        note("nothing is booked; --book books it")


def _tell(delivery: Delivery) -> None:
    if delivery.delivered:
        note(f"{delivery.delivered:,} requests metered")
    if delivery.under_way:
        note(f"{delivery.under_way:,} requests are being metered by the workers")
    for why in delivery.parked:
        note(f"parked, see `tallystick stuck`: {why}")


def _as_dict(found: Rerating, delivery: Delivery | None) -> dict[str, Any]:
    return {
        "price_book": found.price_book,
        "records": found.records,
        "cost_usd": found.cost_usd,
        "charge_usd": found.charge_usd,
        "differences": [_difference(each) for each in found.differences],
        "no_price": [
            {**each.usage.key.model_dump(), "reason": each.reason} for each in found.no_price
        ],
        "booked": found.booked,
        "metered": delivery.delivered if delivery else 0,
        "being_metered": delivery.under_way if delivery else 0,
        "parked": list(delivery.parked) if delivery else [],
    }


def _difference(each: NewAdjustment) -> dict[str, Any]:
    return {
        **each.usage.key.model_dump(),
        "served_at": each.usage.served_at,
        "model": each.usage.model,
        "status": each.status,
        "cost_usd": each.cost_usd,
        "charge_usd": from_nano_usd(each.charge_nano_usd),
        "reason": each.reason,
        "first_price": each.first_price,
    }
