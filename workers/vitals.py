"""The ledger's vital signs as gauges: read now and then, by whoever exports metrics.

Every process that exports reads the same ledger, so these are to be looked at as a maximum and
never as a sum. While PostgreSQL is away they keep their last values, and `tallystick_ledger_up`
is 0.
"""

import asyncio
import logging
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime

from tallystick.ledger import vitals
from tallystick.ledger.database import Ledger, LedgerUnavailableError
from tallystick.ledger.vitals import Vitals
from workers.metrics import meter

READ_EVERY = 10.0
"""Seconds; Prometheus asks every 15 to 60."""

log = logging.getLogger("tallystick.worker")


@contextmanager
def watching(ledger: Ledger) -> Generator[None, None, None]:
    """Keep the gauges up to date while the context is open."""
    task = asyncio.create_task(_watch(ledger))
    try:
        yield
    finally:
        task.cancel()


async def _watch(ledger: Ledger) -> None:
    up = meter().create_gauge("tallystick_ledger_up", "Whether PostgreSQL answered last.")
    gauges = _Gauges()
    while True:
        try:
            async with ledger.each() as tx:
                found = await vitals.read(tx)
        except LedgerUnavailableError:
            up.set(0)
        except Exception:
            # Nothing that is only looked at may end a worker, or stop being looked at.
            log.exception("the ledger's vital signs could not be read")
        else:
            up.set(1)
            gauges.show(found, datetime.now(UTC))
        await asyncio.sleep(READ_EVERY)


class _Gauges:
    def __init__(self) -> None:
        gauge, age = meter().create_gauge, meter().create_gauge_float
        self._unmetered = gauge(
            "tallystick_unmetered_events", "Meter events that Stripe has not acknowledged."
        )
        self._unmetered_age = age(
            "tallystick_unmetered_oldest_seconds", "Age of the oldest of them."
        )
        self._inbox = gauge("tallystick_inbox_events", "Events from Stripe, not applied yet.")
        self._inbox_age = age(
            "tallystick_inbox_oldest_seconds", "How long the oldest of them has waited."
        )
        self._discrepancies = gauge("tallystick_discrepancies", "Discrepancies not settled yet.")
        self._unknown = gauge(
            "tallystick_unknown_attempts", "Calls of unknown outcome, not settled by a report."
        )

    def show(self, found: Vitals, now: datetime) -> None:
        self._unmetered.set(found.unmetered - found.parked, {"state": "waiting"})
        self._unmetered.set(found.parked, {"state": "parked"})
        self._unmetered_age.set(_age(found.oldest_unmetered_at, now))
        self._inbox.set(found.inbox.waiting, {"state": "waiting"})
        self._inbox.set(found.inbox.parked, {"state": "parked"})
        self._inbox_age.set(_age(found.inbox.oldest_received_at, now))
        for state, number in found.discrepancies.items():
            self._discrepancies.set(number, {"state": state.value})
        self._unknown.set(found.unknown_attempts)


def _age(since: datetime | None, now: datetime) -> float:
    return 0.0 if since is None else max(0.0, (now - since).total_seconds())
