"""Whatever happens to a wallet in whatever order, its entries, totals and balance agree."""

import asyncio
import itertools
from datetime import datetime, timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tallystick.ledger import accounts, movements, wallet
from tallystick.ledger.database import Ledger
from tests.wallet.purse import NOON, Purse, nano

_numbers = itertools.count(1)
_hours = st.integers(-48, 48)
_usd = st.integers(1, 9)
_steps = st.lists(
    st.one_of(
        st.tuples(st.just("give"), _usd, st.none() | _hours, st.integers(0, 2)),
        st.tuples(st.just("use"), st.none() | st.integers(0, 9), _hours),
        st.tuples(st.just("use at once"), st.lists(_usd, min_size=2, max_size=4), _hours),
        st.tuples(st.just("correct"), st.integers(-9, 9)),
        st.tuples(st.just("expire"), _hours),
        st.tuples(st.just("revoke"), st.integers(0, 9)),
        st.tuples(st.just("close"), _hours),
    ),
    min_size=1,
    max_size=12,
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_steps)
async def test_entries_totals_and_balance_agree_after_any_sequence(
    ledger: Ledger, steps: list[tuple[Any, ...]]
) -> None:
    purse = await Purse(ledger, customer=f"customer-{next(_numbers)}").open()
    charges: dict[str, int] = {}
    for number, step in enumerate(steps):
        await _take(purse, charges, number, *step)
    await purse.adds_up()
    for moved in (await _moved(purse)).entries:
        if moved.request_id is not None:
            charges[moved.request_id] += moved.amount_nano_usd
    assert set(charges.values()) <= {0}


async def _take(purse: Purse, charges: dict[str, int], number: int, kind: str, *how: Any) -> None:
    """Take one step, and note what each request is charged with its corrections."""
    match kind, how:
        case "give", (usd, expires, priority):
            await purse.give(
                usd,
                f"grant-{number}",
                priority=priority,
                expires_at=None if expires is None else _at(expires),
            )
        case "use", (usd, hours):
            record = (await purse.use(usd, at=_at(hours))).recorded.record
            charges[record.request_id] = nano(usd or 0)
        case "use at once", (amounts, hours):
            burnt = await asyncio.gather(*(purse.use(usd, at=_at(hours)) for usd in amounts))
            for each, usd in zip(burnt, amounts, strict=True):
                charges[each.recorded.record.request_id] = nano(usd)
        case "correct", (usd,) if charges:
            request = list(charges)[-1]
            # A correction never takes more off than was charged.
            difference = max(usd, -charges[request] // nano(1))
            if await purse.correct(request, difference, book=f"book-{number}"):
                charges[request] += nano(difference)
        case "expire", (hours,):
            await purse.expire(_at(hours))
        case "revoke", (given,):
            async with purse.ledger.begin() as tx:
                await wallet.revoke(tx, await purse.account(tx), f"grant-{given}", NOON)
        case "close", (hours,):
            async with purse.ledger.begin() as tx:
                await accounts.close_until(tx, purse.customer, _at(hours))
        case _:
            pass


async def _moved(purse: Purse) -> movements.Movements:
    async with purse.ledger.begin() as tx:
        return await movements.since(tx, purse.customer, NOON - timedelta(days=900))


def _at(hours: int) -> datetime:
    return NOON + timedelta(hours=hours)
