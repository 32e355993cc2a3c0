"""What dies when, and what Claude and Stripe do meanwhile: all of it follows from the seed.

Deaths are spread, one in each stretch of the drill at a moment of its own, so that every drill has
all kinds and none has them all at once. Faults come in waves: for some seconds a few of them strike
a share of all calls, drawn anew with each wave and now and then none, and behind that bursts strike
the next calls that they fit. Bursts are dealt like cards, so that each fault which the stand-ins
know has its turn: a new one joins by being in their list.
"""

import itertools
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Victim = Literal["worker", "Temporal", "PostgreSQL"]
Known = Mapping[str, Sequence[str]]
"""The names of the faults that each stand-in has."""

WORKER_EVERY, SERVER_EVERY = 20.0, 120.0
"""Seconds between the deaths of workers, and of each server, on average."""
DOWN_AT_MOST = 8.0
"""Seconds that a server is away."""
AFTERWARDS = 15.0
"""Seconds at the end in which nothing dies: as long as it takes to notice that a worker is dead."""
WAVE = 15.0
"""Seconds that a wave of faults lasts."""
SHARES = (0.0, 0.1, 0.2, 0.4)
"""Of all calls, struck by the rates of a wave."""
AT_ONCE = 6
"""Faults that share the rates of a wave."""
BURSTS = 3
"""In a wave, at least."""
BURST = 0.05
"""Of the requests of a wave, struck by one burst at the most."""

_SOME = tuple({"identifier": digits} for digits in ("0e", "7f", "c3"))
"""One meter event in five: such a fault strikes all in a call of the stream otherwise."""
VARIANTS: Mapping[str, Sequence[Mapping[str, Any]]] = {
    **dict.fromkeys(("rejected_later", "lost_event", "counted_twice", "wrong_customer"), _SOME),
    "differs": ({"inference_geo": "us"}, {"speed": "fast"}, {"service_tier": "priority"}),
    "refused": tuple({"status": status} for status in (400, 401, 402, 403, 404)),
    "spend_limit": (
        {"code": "enforced_spend_limit_reached"},
        {"code": "contract_spend_limit_reached"},
    ),
}
"""Options of the faults that mean something else with others. Rates know no options, and leave to
the bursts what needs some."""


@dataclass(frozen=True, slots=True)
class Death:
    """A SIGKILL at `at` seconds; a server is back `down` seconds later, a worker at once.

    `slot` says which worker.
    """

    at: float
    victim: Victim
    slot: int
    down: float


@dataclass(frozen=True, slots=True)
class Wave:
    """From `at` seconds on: an order for each stand-in's `/_sandbox/faults`."""

    at: float
    orders: Mapping[str, Mapping[str, Any]]


def deaths(seed: int, seconds: float, workers: int) -> list[Death]:
    """Return who dies when. The first worker is spared: its memory is watched."""
    dice = _dice("deaths", seed)
    until = max(seconds - AFTERWARDS, seconds * 0.6)
    found: list[Death] = []
    plan: list[tuple[Victim, float]] = [
        ("worker", WORKER_EVERY),
        ("Temporal", SERVER_EVERY),
        ("PostgreSQL", SERVER_EVERY),
    ]
    for victim, every in plan:
        times = max(1, round(seconds / every))
        stretch = until / times
        for number in range(times):
            down = dice.uniform(0, min(DOWN_AT_MOST, stretch / 2))
            at = stretch * number + dice.uniform(0, stretch - down)
            found.append(Death(at, victim, dice.randrange(1, workers), down))
    return sorted(found, key=lambda death: death.at)


def waves(seed: int, seconds: float, rate: float, known: Known) -> list[Wave]:
    """Return the waves of faults for a load of about `rate` requests a second."""
    dice = _dice("waves", seed)
    count = max(3, round(seconds / WAVE))
    decks = {service: _dealt(dice, names) for service, names in known.items()}
    most = max(1, round(rate * seconds / count * BURST))
    return [
        Wave(
            seconds / count * number,
            {
                service: {
                    "seed": dice.randrange(2**31),
                    "rates": _rates(dice, names),
                    "rules": [
                        _burst(dice, next(decks[service]), most)
                        for _ in range(max(BURSTS, math.ceil(len(names) / count)))
                    ],
                }
                for service, names in known.items()
            },
        )
        for number in range(count)
    ]


def _rates(dice: random.Random, names: Sequence[str]) -> dict[str, float]:
    """Share out what is struck; faults that have no share are named too, so that they end."""
    share = dice.choice(SHARES)
    able = sorted(set(names) - VARIANTS.keys())
    struck = dice.sample(able, min(AT_ONCE, len(able)))
    return {name: round(share / len(struck), 4) if name in struck else 0.0 for name in able}


def _burst(dice: random.Random, name: str, most: int) -> dict[str, Any]:
    options = dice.choice(VARIANTS.get(name, ({},)))
    return {"fault": name, "times": dice.randint(1, most), "options": options}


def _dealt(dice: random.Random, names: Sequence[str]) -> Iterator[str]:
    """Deal the names, shuffled anew whenever all have been dealt."""
    for _ in itertools.count():
        yield from dice.sample(sorted(names), len(names))


def _dice(what: str, seed: int) -> random.Random:
    return random.Random(f"{what} {seed}")  # noqa: S311 - repeatable, no secret
