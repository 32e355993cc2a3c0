"""What a request adds to the metrics of the worker that runs it.

Counted in the workflow, which knows how a request ended whatever step ended it; the meter is silent
while a history is replayed, so a request is counted once and not once for each worker it meets.
Labels come from the error table and from the price book: their number is bounded, and no customer,
request or prompt is among them.
"""

from enum import StrEnum

from temporalio import workflow

with workflow.unsafe.imports_passed_through():
    from tallystick.contracts import Bill
    from tallystick.errors import FAILURES
    from tallystick.money import to_nano_usd
    from tallystick.pricing.tokens import TokenKind


class RequestOutcome(StrEnum):
    """How a request went, as far as its caller or an operator is concerned."""

    ANSWERED = "answered"
    REFUSED = "refused"
    FAILED = "failed"
    PARKED = "parked"
    """A step waits for a person; the request may still be answered, and is then counted again."""


def count_outcome(outcome: RequestOutcome, type_: str = "") -> None:
    """Count a request; `type_` is the row of the error table that it ended or parked by."""
    label = type_ if not type_ or type_ in FAILURES else "other"
    _add("tallystick_requests", "Requests by how they went.", 1, outcome=outcome, type=label)


def count_bill(bill: Bill) -> None:
    """Count what an answer cost, what it is charged, and what Claude served for it."""
    if bill.cost_usd is None or bill.charge_usd is None:
        _add("tallystick_requests_unpriced", "Answers without a price, which wait for one.", 1)
        return
    _add(
        "tallystick_charge_nano_usd",
        "Charged to customers for requests.",
        to_nano_usd(bill.charge_usd),
    )
    _add("tallystick_cost_nano_usd", "Claude's price of requests.", to_nano_usd(bill.cost_usd))
    for line in bill.lines:
        if line.kind == TokenKind.WEB_SEARCH:
            _add("tallystick_web_searches", "Searches by Claude, for requests.", line.quantity)
        else:
            told = "Tokens that Claude served for requests."
            _add("tallystick_tokens", told, line.quantity, kind=line.kind, model=line.model)


def _add(name: str, description: str, value: int, **labels: str) -> None:
    workflow.metric_meter().create_counter(name, description).add(value, labels)
