"""Room under a limit: refused by what is spent, made to wait by what is only reserved."""

from dataclasses import replace
from decimal import Decimal

import pytest

from tallystick.errors import CONVERSATION_CAP_REACHED, SPEND_CAP_REACHED
from tallystick.plans.guards import Refusal
from tallystick.plans.rooms import Fits, Occupied, Room, find_room


def room(limit: str, spent: str, reserved: str) -> Room:
    return Room(
        name="the cap",
        limit_usd=Decimal(limit),
        spent_usd=Decimal(spent),
        reserved_usd=Decimal(reserved),
        failure=SPEND_CAP_REACHED,
        remedy="wait",
    )


@pytest.mark.parametrize(
    ("limit", "spent", "reserved", "estimate", "verdict"),
    [
        ("10", "0", "0", "10", Fits),
        ("10", "0", "0", "10.000000001", Refusal),
        ("10", "9", "0", "1", Fits),
        ("10", "9", "0.000000001", "1", Occupied),
        ("10", "9", "1", "1.000000001", Refusal),
        ("10", "4", "5", "1", Fits),
        ("10", "11", "0", "0.000000001", Refusal),
        ("0", "0", "0", "0", Fits),
    ],
)
def test_the_limit_is_met_to_the_last_nano_dollar(
    limit: str, spent: str, reserved: str, estimate: str, verdict: type
) -> None:
    assert isinstance(find_room([room(limit, spent, reserved)], Decimal(estimate)), verdict)


def test_a_refusal_names_what_is_spent_the_cap_and_the_estimate() -> None:
    refused = find_room([room("10", "9.5", "0.2")], Decimal("0.75"))
    assert isinstance(refused, Refusal)
    assert refused.failure is SPEND_CAP_REACHED
    assert refused.message == (
        "the cap of $10 has no room: $9.5 is spent and this request may be charged up to $0.75 "
        "(estimated); wait"
    )
    assert refused.figures == {"limit_usd": "10", "spent_usd": "9.5", "estimate_usd": "0.75"}


def test_every_room_must_have_room_and_a_refusal_comes_before_a_wait() -> None:
    wide, busy, full = room("10", "0", "0"), room("10", "5", "5"), room("10", "10", "0")
    full = replace(full, failure=CONVERSATION_CAP_REACHED)
    assert isinstance(find_room([wide, busy], Decimal(1)), Occupied)
    refused = find_room([wide, busy, full], Decimal(1))
    assert isinstance(refused, Refusal)
    assert refused.failure is CONVERSATION_CAP_REACHED


def test_without_a_limit_there_is_always_room() -> None:
    assert find_room([], Decimal(10**9)) == Fits(())


def test_warnings_begin_at_four_fifths() -> None:
    quiet = find_room([room("10", "5", "1.99")], Decimal(1))
    told = find_room([room("10", "5", "2")], Decimal(1))
    assert quiet == Fits(())
    assert isinstance(told, Fits)
    assert told.warnings == (
        "the cap of $10 is near: $5 is spent, and requests in flight, this one included, may be "
        "charged up to $3 more (estimated)",
    )
