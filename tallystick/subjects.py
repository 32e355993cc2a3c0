"""What an operator calls a thing that waits: one name for each, the same on every screen.

A workflow is called by its id, an event from Stripe by Stripe's. What a request has in the outbox
is `meter-events/{customer}/{request}`, which is also the id under which it is delivered without its
workflow; its usage is `usage/{customer}/{request}`, a difference `difference/{number}`. A customer
id has no slash, so every name reads one way only. `tallystick stuck` prints them, and its commands,
the operators' journal and the workflows' own pages use them.
"""

from typing import Literal, NamedTuple

Kind = Literal["request", "batch", "cycle", "meter", "usage", "difference", "event"]

_PREFIXES: dict[str, tuple[Kind, int]] = {
    "claude-request": ("request", 2),
    "message-batch": ("batch", 1),
    "billing-cycle": ("cycle", 1),
    "meter-events": ("meter", 2),
    "usage": ("usage", 2),
    "difference": ("difference", 1),
}
"""The kinds by what their names begin with, and of how many parts the rest is."""


class Subject(NamedTuple):
    """A thing that waits. `parts` are the ids in its name: a customer and a request, a job, ..."""

    name: str
    kind: Kind
    parts: tuple[str, ...]


def parse_subject(name: str) -> Subject:
    """Read a name.

    Raises:
        ValueError: in words that say what a name looks like.
    """
    if name and "/" not in name:
        return Subject(name, "event", (name,))
    prefix, _, rest = name.partition("/")
    kind, count = _PREFIXES.get(prefix, (None, 0))
    parts = tuple(rest.split("/", count - 1))
    if kind is None or len(parts) != count or not all(parts):
        raise ValueError(
            f"{name!r} names nothing that waits; `tallystick stuck` shows the names, such as "
            "meter-events/acme/r-1"
        )
    return Subject(name, kind, parts)


def meter_subject(customer_id: str, request_id: str) -> str:
    """Name what a request has in the outbox."""
    return f"meter-events/{customer_id}/{request_id}"


def usage_subject(customer_id: str, request_id: str) -> str:
    """Name the usage of a request."""
    return f"usage/{customer_id}/{request_id}"


def difference_subject(discrepancy_id: int) -> str:
    """Name a discrepancy."""
    return f"difference/{discrepancy_id}"


# --- What a workflow's own page says can be done --------------------------------------------------
HOW_TO_PRICE = (
    "Once the price book knows its price, `tallystick rerate --from DATE --book` prices it and has "
    "it metered."
)
HOW_TO_DECIDE = (
    "`tallystick reconcile show --open` lists what differs; `tallystick reconcile apply ID --yes` "
    "does what is proposed, `tallystick reconcile dismiss ID --reason ...` leaves it."
)


def how_to_go_on(name: str, *, skipping: bool = False) -> str:
    """Say how a parked step goes on: by itself, at once by a command, or not at all."""
    words = (
        "It is tried again by itself; once its cause is mended, at once by "
        f"`tallystick stuck retry {name}`."
    )
    return (
        f"{words} Given up by `tallystick stuck skip {name} --reason ...`." if skipping else words
    )
