"""What can be done about a thing that waits: the exact command, or that it goes on by itself.

Told in one place, so that the list of all that waits and whoever else shows it say the same.
"""

from collections.abc import Mapping

from tallystick.ledger.waiting import Waiting

_PAYING = (
    "the customer pays, and is served again by itself; to serve it all the same: "
    "tallystick customer resume {customer}"
)
_REMEDIES: Mapping[str, str] = {
    "parked": "{again}; or, once its customer is mapped anew: tallystick stuck correct {subject}; "
    "or: {skip}",
    "unmapped": "tallystick stuck correct {subject} --stripe-customer cus_...; or: {skip}",
    "unpriced": "once the price book knows a price: tallystick rerate --from {day} --book",
    "event parked": "{again}; or: {skip}",
    "difference": "tallystick reconcile show {number}; then: tallystick reconcile apply {number} "
    "--yes; or: tallystick reconcile dismiss {number} --reason ...",
    "unpaid": _PAYING,
    "grace": _PAYING,
    "suspended": _PAYING,
    "stuck claude-request": "{again}; or: {skip}",
    "stuck message-batch": "{again}; or: tallystick batch cancel {number}",
    "outcome unknown": "nothing: reconciliation settles what it cost, which no customer pays",
    "in flight": "see that a `tallystick worker` runs; it goes on by itself",
    "unanswered": "see that a `tallystick worker` runs; it goes on by itself",
}
_BY_ITSELF = "it is tried again by itself; at once: {again}"


def remedy(row: Waiting) -> str:
    """Say what can be done about a row."""
    return _REMEDIES.get(_kind(row), _BY_ITSELF).format(
        subject=row.subject,
        customer=row.customer_id,
        again=f"tallystick stuck retry {row.subject}",
        skip=f"tallystick stuck skip {row.subject} --reason ...",
        number=row.subject.partition("/")[2],
        day=f"{row.since:%Y-%m-%d}",
    )


def _kind(row: Waiting) -> str:
    if row.what == "parked" and row.unmapped:
        return "unmapped"
    if row.what == "stuck":
        return f"stuck {row.subject.partition('/')[0]}"
    return row.what
