"""Fifty days on which something goes wrong: all of it is found, nothing else is, and all is mended.

After the repairs a day's three records tally, or what still differs is a row with a cause; and
whoever repairs and compares everything once more changes nothing.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import pytest

from scripts.bench_usage import Usage, seed
from tallystick.ledger.database import Ledger
from tallystick.ledger.reconciliation_tables import Discrepancy
from tallystick.metering import CHARGE_METER, UNITS, token_meter
from tallystick.pricing import TOKEN_KINDS, TokenCounts, TokenKind
from tallystick.reconciling.findings import Cause, Pair
from tallystick.reconciling.reported import model_of
from tests.invoicing.stand import CLOSE, PLANS, Books
from tests.reconciliation.report_faults import by_model
from tests.reconciliation.scenarios import HOURS, SCENARIOS, Reports, Scenario
from tests.reconciliation.striking import PRICED, UNPRICED, Expected, Row, When
from tests.reconciliation.world import (
    DAY,
    HAIKU,
    HOUR,
    MINUTE,
    NEXT_DAY,
    SETTLES,
    World,
    open_world,
)
from tests.statements.stand import add_plans

QUIET_HOUR = 21
MOST_ROUNDS = 6
"""In each of them a person applies what is proposed, and a run looks at what came of it."""
OF_REPORTS = (Pair.CLAUDE_LEDGER, Pair.COST_LEDGER)
STATES = {
    Reports.IN_TIME: "compared",
    Reports.LATE: "compared",
    Reports.NO_KEY: "no_admin_key",
}


@pytest.mark.parametrize("day", SCENARIOS, ids=lambda day: day.name)
async def test_what_goes_wrong_is_found_and_mended_and_nothing_else(
    day: Scenario, ledger: Ledger
) -> None:
    knows_reports = day.reports is not Reports.NO_KEY
    async with open_world(ledger, admin_key=knows_reports) as world:
        struck = await live(world, day)
        expected = [row for each in struck for row in each.rows if knows_reports or _of_stripe(row)]
        await world.go(max(world.now, NEXT_DAY + day.when.value))
        delivered = await delivered_by_minute(world)
        await look(world, day)
        assert await found(world) == Counter(map(stated, expected))
        await sides_are_what_the_records_say(world, delivered)

        for each in struck:
            if each.remedy is not None:
                await each.remedy()
        await mend(world)
        assert await ends(world) == {named(row): (row.state, row.repairs) for row in expected}
        lost = [served for each in struck for served in each.lost if knows_reports]
        settled = await world.rows("SELECT served FROM attempt_settlements")
        assert Counter(row.served for row in settled) == Counter(lost)
        await charges_tally(world)
        if knows_reports:
            await usage_tallies(world)


@pytest.mark.parametrize(
    ("records", "customers"),
    [(5_000, 5), pytest.param(100_000, 20, marks=pytest.mark.long)],
    ids=["5,000", "100,000"],
)
async def test_a_clean_month_leaves_nothing(
    records: int, customers: int, ledger: Ledger, database_url: str
) -> None:
    month = Usage(records, customers, DAY, DAY + 30 * 24 * HOUR)
    async with open_world(ledger) as world:
        await world.go(month.end + HOUR)
        await seed(
            database_url,
            world.stripe.client(),
            str(world.claude.base_url),
            world.stripe.url,
            month,
        )
        result = await world.reconcile(month.start, month.end)
        assert (result.claude_state, result.failed) == ("compared", {})
        assert await world.found() == []


# --- A day ----------------------------------------------------------------------------------------
async def live(world: World, day: Scenario) -> list[Expected]:
    """Let the day pass; returns what its faults leave to be found."""
    books = await open_books(world) if day.when is When.CLOSED else None
    if books is None:
        await world.add_customer(PRICED, account=True)
    await world.add_customer(UNPRICED)
    await world.add_customer("idle")
    strikes = {strike.hour: (fault, strike) for fault, strike in day.strikes(world)}
    struck: list[Expected] = []
    for hour in (DAY + number * HOUR for number in (*HOURS, QUIET_HOUR)):
        await world.use(PRICED, hour + 6 * MINUTE, cached=True)
        await world.use(UNPRICED, hour + 7 * MINUTE, model=HAIKU, tokens=250)
        if hour in strikes:
            fault, strike = strikes[hour]
            struck.append(await fault(strike))
    if books is not None:
        await close(books, struck)
    return struck


async def open_books(world: World) -> Books:
    """Have Stripe collect what the priced customer uses, from half a day before."""
    await add_plans(world.ledger, **PLANS)
    books = Books(world.ledger, world.stripe, world.metering)
    await books.begin("usage")
    assert books.customer == PRICED
    world.stripe_ids[PRICED] = books.name
    return books


async def close(books: Books, struck: Sequence[Expected]) -> None:
    """Close the period; what happens while its invoice becomes final comes just before that."""
    await books.go(await books.end_of(1) + 10 * MINUTE)
    *before, last = CLOSE[:-2]
    await books.all(before, 1)
    hold = await books.stripe.hold("/finalize", at="received")
    closing = asyncio.create_task(books.step(last, 1))
    await books.stripe.until_held()
    for each in struck:
        if each.while_invoiced is not None:
            await each.while_invoiced()
    await books.stripe.control("DELETE", f"holds/{hold}")
    await closing
    for each in struck:
        if each.afterwards is not None:
            await each.afterwards()


async def look(world: World, day: Scenario) -> None:
    """Reconcile the day: once, or where the reports are late a second time when they are there."""
    if day.reports is Reports.LATE:
        await world.tell_claude("reports", {"lag": (day.when.value + HOUR).total_seconds()})
        early = await world.reconcile()
        assert early.claude_state == "unsettled"
        assert not [each for each in await world.found() if each.pair in OF_REPORTS]
        await world.tell_claude("reports", {"lag": 0})
        await world.go(world.now + SETTLES)
    result = await world.reconcile()
    assert result.claude_state == STATES[day.reports]
    assert not result.failed


async def mend(world: World) -> None:
    """Apply whatever is proposed and look again, until there is nothing left to do.

    The last round does all of it once more, and nothing changes.
    """
    for _ in range(MOST_ROUNDS):
        before = await world.everything()
        for each in await world.found():
            await world.apply(each)
        await world.go(world.now + SETTLES + MINUTE)
        await world.reconcile()
        if await world.everything() == before:
            return
    raise AssertionError("it never comes to rest")


# --- What was found -------------------------------------------------------------------------------
def _of_stripe(row: Row) -> bool:
    return row.pair not in OF_REPORTS


def stated(row: Row) -> tuple[Any, ...]:
    differs = tuple(sorted(row.differs.items()))
    return (row.pair, row.kind, row.cause, row.of, row.start, row.end, differs)


def named(row: Row) -> tuple[Any, ...]:
    return (row.pair, row.kind, row.of, row.start)


async def found(world: World) -> Counter[tuple[Any, ...]]:
    """Return every discrepancy as the scenarios state theirs."""
    return Counter(
        (
            each.pair,
            each.kind,
            each.cause,
            _of(each),
            each.start_at,
            each.end_at,
            tuple(sorted(_differs(each).items())),
        )
        for each in await world.found()
    )


async def ends(world: World) -> dict[tuple[Any, ...], tuple[str, tuple[Any, ...]]]:
    """Return how each discrepancy stands, and what was tried."""
    return {
        (each.pair, each.kind, _of(each), each.start_at): (
            each.state,
            await world.repairs_of(each),
        )
        for each in await world.found()
    }


def _of(each: Discrepancy) -> str:
    if each.customer_id is not None:
        return f"{each.customer_id} {UNITS[each.place['meter']]}"
    return each.place["model"]


def _differs(each: Discrepancy) -> dict[str, int]:
    first, second = each.pair.split("-")
    return {
        unit: int(sides.get(first, 0)) - int(sides.get(second, 0))
        for unit, sides in each.amounts.items()
    }


async def delivered_by_minute(world: World) -> dict[tuple[str, str, datetime], int]:
    """Return what Stripe has acknowledged by now, by customer, unit and minute."""
    rows = await world.rows(
        "SELECT customer_id, meter, date_trunc('minute', occurred_at) AS minute, "
        "sum(value) AS value FROM meter_events WHERE delivered_at IS NOT NULL GROUP BY 1, 2, 3"
    )
    return {(row.customer_id, UNITS[row.meter], row.minute): int(row.value) for row in rows}


async def sides_are_what_the_records_say(
    world: World, delivered: Mapping[tuple[str, str, datetime], int]
) -> None:
    """Check one side of each difference; the other follows from the difference."""
    reported = await world.reported()
    for each in await world.found():
        for unit, sides in each.amounts.items():
            if each.kind in ("not_counted", "overcounted"):
                place = (each.customer_id or "", unit, each.start_at)
                assert sides["outbox"] == delivered.get(place, 0)
            if each.pair == Pair.CLAUDE_LEDGER and each.end_at - each.start_at >= HOUR:
                told = reported.get((each.place["model"], each.start_at), TokenCounts())
                assert sides["claude"] == told.by_kind()[TokenKind(unit)]


# --- The three records ----------------------------------------------------------------------------
async def charges_tally(world: World) -> None:
    """Stripe counts what it was sent, and it was sent what was recorded; but for what is told."""
    left = _left(await world.found(), Pair.OUTBOX_STRIPE, Pair.LEDGER_OUTBOX)
    counted = await world.counted()
    recorded = Counter[tuple[str, str]]()
    meters = {CHARGE_METER: "charge_nano_usd"}
    meters |= {token_meter(kind): f"{kind}_tokens" for kind in TOKEN_KINDS}
    for meter, column in meters.items():
        for row in await world.rows(
            f"SELECT customer_id, sum({column}) AS value FROM usage_records "
            "WHERE cost_usd IS NOT NULL GROUP BY customer_id"
        ):
            mapped = world.stripe_ids.get(row.customer_id, "")
            differs = int(row.value) - counted.get((mapped, meter), 0)
            recorded[row.customer_id, UNITS[meter]] = differs
    assert +recorded == +left
    assert -recorded == -left


async def usage_tallies(world: World) -> None:
    """Claude reports what was recorded, or settled as lost; but for what is told."""
    left = _left(await world.found(), Pair.CLAUDE_LEDGER)
    differs = Counter[tuple[str, str]]()
    for (model, _), counts in (await world.reported()).items():
        differs.update({(model, str(kind)): count for kind, count in counts.by_kind().items()})
    for row in await world.rows("SELECT evidence FROM usage_records"):
        for model, counts in by_model(row.evidence):
            told = counts.by_kind().items()
            differs.subtract({(model_of(model), str(kind)): count for kind, count in told})
    columns = ", ".join(f"s.{kind}_tokens AS {kind}" for kind in TOKEN_KINDS)
    for row in await world.rows(
        f"SELECT model, {columns} FROM attempt_settlements s JOIN attempts USING (attempt_id)"
    ):
        differs.subtract({(model_of(row.model), kind): getattr(row, kind) for kind in TOKEN_KINDS})
    assert +differs == +left
    assert -differs == -left


def _left(rows: Sequence[Discrepancy], *pairs: Pair) -> Counter[tuple[str, str]]:
    """Return what still differs and is told, by place and unit, but for edges within the day."""
    left = Counter[tuple[str, str]]()
    for each in rows:
        if (
            each.pair in pairs
            and each.state in ("open", "explained")
            and each.cause != Cause.BUCKET_EDGE
        ):
            of = each.customer_id or each.place["model"]
            left.update({(of, unit): count for unit, count in _differs(each).items()})
    return left
