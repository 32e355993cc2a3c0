"""The names under which usage is told to Stripe: meters, and the identifier of each event.

Pure, because three sides must agree on them without asking each other: the ledger writes them into
the outbox in the transaction of the usage record, the metering activity sends what is written
there, and `tallystick stripe setup` creates the meters. An identifier is a function of the usage
fact alone, so whoever sends an event again, after whatever crash, sends the same one and Stripe
counts it once (facts on Stripe, 'Read this first' 2, and 'Ranked traps' 2).
"""

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

CHARGE_METER = "tallystick_charge_nano_usd"
"""The one meter that is billed: the charge in whole nano-USD, 0.0000001 cents a unit."""

TOKEN_KINDS: tuple[str, ...] = (
    "input",
    "output",
    "cache_write_5m",
    "cache_write_1h",
    "cache_read",
)
"""The kinds of token that have a meter of their own; these meters inform and carry no price."""


def token_meter(kind: str) -> str:
    """Return the event name of the meter for one kind of token.

    Raises:
        ValueError: for a kind without a meter; Stripe would accept the event and drop it later.
    """
    if kind not in TOKEN_KINDS:
        raise ValueError(
            f"no meter counts tokens of kind {kind!r}; known: {', '.join(TOKEN_KINDS)}"
        )
    return f"tallystick_{kind}_tokens"


METERS: Mapping[str, str] = {
    CHARGE_METER: "Claude usage charge (nano-USD)",
    token_meter("input"): "Claude input tokens, uncached",
    token_meter("output"): "Claude output tokens",
    token_meter("cache_write_5m"): "Claude cache write tokens, 5 minutes",
    token_meter("cache_write_1h"): "Claude cache write tokens, 1 hour",
    token_meter("cache_read"): "Claude cache read tokens",
}
"""Event name to display name, for every meter there is."""

UNITS: Mapping[str, str] = {
    CHARGE_METER: "charge_nano_usd",
    **{token_meter(kind): kind for kind in TOKEN_KINDS},
}
"""What each meter counts, by event name: the word for it wherever records are laid side by side."""


def meter_values(charge_nano_usd: int, tokens: Mapping[Any, int]) -> list[tuple[str, int]]:
    """Return what a priced reply leaves on the meters, as (meter, value); zeros included.

    Args:
        charge_nano_usd: what the customer pays.
        tokens: the quantity of each kind, by its name.
    """
    return [
        (CHARGE_METER, charge_nano_usd),
        *((token_meter(kind), tokens[kind]) for kind in TOKEN_KINDS),
    ]


def meter_identifier(customer_id: str, request_id: str, meter: str) -> str:
    """Return the identifier of the one event that a request leaves on a meter.

    75 characters of at most 100, so that a repair can append a suffix. A digest, since the ids it
    stands for are the application's own and may be longer, or say more than Stripe need know.
    """
    # As JSON, because joining with any separator would let two triples read alike.
    fact = json.dumps([customer_id, request_id, meter], separators=(",", ":"))
    return f"tallystick-{hashlib.sha256(fact.encode()).hexdigest()}"


# --- Stripe's windows, each with a margin (facts on Stripe, 'Read this first' 2, 'Meters') --------
RESENT_FOR = timedelta(hours=23)
"""From the first send on, a resend is safe: Stripe still knows the identifier."""
CANCELLED_FOR = timedelta(hours=23)
"""From the first send on, Stripe still cancels an event."""
TAKEN_FOR = timedelta(days=35)
"""How far back Stripe takes usage."""
SENT_FOR = TAKEN_FOR - timedelta(days=1)
"""Until then a first send may happen; its resends end before `TAKEN_FOR`."""

# --- Sending again --------------------------------------------------------------------------------
_RESENT = re.compile(r"#k?\d+$")
_MOST_REPAIRS = 9


def resend_key(identifier: str, days: int) -> str:
    """Return the idempotency key under which an event is sent again after so many days."""
    return f"{identifier}#{days}"


def repair_key(identifier: str, repair_id: int) -> str:
    """Return the idempotency key under which a repair sends or cancels: no send has used it."""
    return f"{identifier}#k{repair_id}"


def sent_identifier(reported: str) -> str:
    """Return the identifier of the event that Stripe names by it, or by a key of its sends."""
    return _RESENT.sub("", reported)


def repairs(identifier: str) -> list[str]:
    """Return all identifiers that one event can have, in the order in which it gets them.

    An event that Stripe took and rejected later is sent again under the next of them.
    """
    first = identifier.partition("#r")[0]
    return [first, *(f"{first}#r{number}" for number in range(1, _MOST_REPAIRS + 1))]


def correction_identifier(identifier: str, number: int) -> str:
    """Return the identifier of an event that corrects what Stripe counts of another's minute.

    Corrections of one minute are numbered from 1; none of them is usage, or in the outbox.
    """
    return f"{identifier}#c{number}"
