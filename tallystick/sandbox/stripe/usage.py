"""What a meter shows of one customer's use: the basis of its summaries and of metered lines.

It lags behind the receipts by `summary_lag`, on an invoice as in a summary, so usage reported a
moment before a draft finalizes may miss it.
"""

from collections.abc import Iterable

from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.journal import Entry
from tallystick.sandbox.stripe.wire import Obj


def visible(account: Account, meter: Obj, customer: str, start: int, end: int) -> list[Entry]:
    """Return what counts in [start, end) and is old enough to be seen, in order of receipt."""
    seen = account.clock() - account.summary_lag
    return [
        entry
        for entry in account.journal.effective(meter["event_name"], customer)
        if start <= entry.timestamp < end and entry.received_at <= seen
    ]


def aggregate(meter: Obj, entries: Iterable[Entry]) -> int:
    """Return one figure for them; nothing is zero."""
    amounts = [entry.amount for entry in entries]
    match meter["default_aggregation"]["formula"]:
        case "sum":
            return sum(amounts)
        case "count":
            return len(amounts)
        case _:
            return amounts[-1] if amounts else 0
