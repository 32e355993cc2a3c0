"""Room to spend: whether a request's worst case still fits under the limits that apply to it.

A limit (a spend cap, a conversation's cap, a prepaid balance) is a room: so much in all, of which
so much is spent and so much reserved for requests in flight. What is spent stays spent, so a
request that does not fit beside it is refused. What is reserved is a worst case and mostly comes
back, so a request that only reservations keep out waits. Nobody is thus refused while there may be
room left, and what is spent and reserved together never exceeds the limit.
"""

from collections.abc import Collection
from dataclasses import dataclass
from decimal import Decimal

from tallystick.errors import Failure
from tallystick.money import plain
from tallystick.plans.guards import WARN_PERCENT, Refusal


@dataclass(frozen=True, slots=True)
class Room:
    """One limit and how much of it is taken, in US dollars of charge.

    Args:
        name: what it is, as a sentence begins with it.
        limit_usd: what may be spent in all.
        spent_usd: charged so far; nothing for a balance, which went down by it already.
        reserved_usd: kept free for other requests in flight.
        failure: the row of the error table for a request that does not fit.
        remedy: what a person can do about it.
    """

    name: str
    limit_usd: Decimal
    spent_usd: Decimal
    reserved_usd: Decimal
    failure: Failure
    remedy: str


@dataclass(frozen=True, slots=True)
class Fits:
    """There is room for the worst case in every room."""

    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Occupied:
    """Only requests in flight stand in the way; `message` says of which room."""

    message: str


def find_room(rooms: Collection[Room], estimate_usd: Decimal) -> Fits | Occupied | Refusal:
    """Decide whether a request that may be charged up to `estimate_usd` can go ahead."""
    for room in rooms:
        if room.spent_usd + estimate_usd > room.limit_usd:
            return _refusal(room, estimate_usd)
    for room in rooms:
        if room.spent_usd + room.reserved_usd + estimate_usd > room.limit_usd:
            return Occupied(
                f"{room.name} of ${plain(room.limit_usd)} is taken up by requests in flight "
                f"({_spent(room, ' spent, ')}${plain(room.reserved_usd)} reserved)"
            )
    return Fits(tuple(_near(room, estimate_usd) for room in rooms if _is_near(room, estimate_usd)))


def _refusal(room: Room, estimate_usd: Decimal) -> Refusal:
    return Refusal(
        room.failure,
        f"{room.name} of ${plain(room.limit_usd)} has no room: {_spent(room, ' is spent and ')}"
        f"this request may be charged up to ${plain(estimate_usd)} (estimated); {room.remedy}",
        {
            "limit_usd": plain(room.limit_usd),
            "spent_usd": plain(room.spent_usd),
            "estimate_usd": plain(estimate_usd),
        },
    )


def _is_near(room: Room, estimate_usd: Decimal) -> bool:
    taken = room.spent_usd + room.reserved_usd + estimate_usd
    return taken * 100 >= room.limit_usd * WARN_PERCENT


def _near(room: Room, estimate_usd: Decimal) -> str:
    return (
        f"{room.name} of ${plain(room.limit_usd)} is near: {_spent(room, ' is spent, and ')}"
        f"requests in flight, this one included, may be charged up to "
        f"${plain(room.reserved_usd + estimate_usd)} more (estimated)"
    )


def _spent(room: Room, then: str) -> str:
    return f"${plain(room.spent_usd)}{then}" if room.spent_usd else ""
