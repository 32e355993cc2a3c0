"""Fifty days on which something goes wrong with the records, drawn from a catalogue of faults.

On each of them one to three faults strike, each in an hour of its own. Nothing else may be found
than what they leave: requests that nothing is wrong with go on beside them, in the same minute, in
the same hour, by the same customers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from random import Random

from tests.reconciliation.report_faults import (
    IN_THE_REPORTS,
    OF_THE_COST,
    TELLS_USAGE_OTHERWISE,
    charged_refusal,
    declined_hop,
    died_after_it_was_served,
    edge_of_the_hour,
    failed_calls,
    refusal_left_out,
)
from tests.reconciliation.striking import (
    CUSTOMERS,
    METERS,
    Fault,
    Strike,
    When,
)
from tests.reconciliation.stripe_faults import AT_STRIPE, OF_A_CLOSED_PERIOD
from tests.reconciliation.world import (
    DAY,
    HOUR,
    MINUTE,
    World,
)

HOURS = (3, 9, 15)
"""In each of them one fault strikes."""
CATALOGUE = (*AT_STRIPE, *IN_THE_REPORTS)


class Reports(Enum):
    """What can be had of Anthropic's reports."""

    IN_TIME = "in time"
    LATE = "late"
    """Behind at the first look, there at the next."""
    NO_KEY = "no admin key"


PINNED: Mapping[int, tuple[Fault, ...]] = {
    48: (failed_calls, charged_refusal, refusal_left_out),
    49: (died_after_it_was_served, declined_hop, edge_of_the_hour),
}
"""Days that are not drawn: the records once were taken for explained by each other's faults."""


@dataclass(frozen=True)
class Scenario:
    """A day on which one to three faults strike. Drawn by its seed, and the same each time."""

    seed: int
    faults: tuple[Fault, ...]
    when: When
    reports: Reports

    @property
    def name(self) -> str:
        told = [self.when.name.lower(), *(fault.__name__ for fault in self.faults)]
        if self.reports is not Reports.IN_TIME:
            told.insert(1, self.reports.value.replace(" ", "_"))
        return f"{self.seed:02}-{'-'.join(told)}"

    def strikes(self, world: World) -> list[tuple[Fault, Strike]]:
        """Return each fault with where and when it strikes."""
        draw = Random(1_000 + self.seed)
        return [
            (
                fault,
                Strike(
                    world,
                    at=DAY + hour * HOUR + draw.randrange(10, 25) * MINUTE,
                    when=self.when,
                    customer=draw.choice(CUSTOMERS),
                    meter=draw.choice(METERS),
                    seed=self.seed,
                ),
            )
            for fault, hour in zip(self.faults, HOURS, strict=False)
        ]


WHENS = (When.SOON, When.LATER, When.OLD)
DAYS_AT_STRIPE = len(AT_STRIPE) * len(WHENS)
DAYS = 50


def scenario(seed: int) -> Scenario:
    """Draw a day.

    Each fault at Stripe has its own three days, one for each age at which it is looked at; then
    come days of a period that is closed, and days on which nothing is wrong there. What else
    strikes on a day is drawn, first of all from what the reports tell.
    """
    draw = Random(seed)
    reports = Reports.IN_TIME
    if seed % 10 == 3:
        reports = Reports.NO_KEY
    elif seed % 10 == 7:
        reports = Reports.LATE
    second, others = IN_THE_REPORTS[seed % len(IN_THE_REPORTS)], CATALOGUE
    if seed <= DAYS_AT_STRIPE:
        first, when = AT_STRIPE[(seed - 1) // len(WHENS)], WHENS[(seed - 1) % len(WHENS)]
    elif seed <= DAYS_AT_STRIPE + len(OF_A_CLOSED_PERIOD):
        first, when = OF_A_CLOSED_PERIOD[seed - DAYS_AT_STRIPE - 1], When.CLOSED
        others = IN_THE_REPORTS
    else:
        first, when = second, draw.choice(WHENS)
        second, others = draw.choice(IN_THE_REPORTS), IN_THE_REPORTS
    drawn = dict.fromkeys((first, second, draw.choice(others)))
    faults = tuple(drawn)[: draw.randint(1, 3)]
    if OF_THE_COST & {*faults}:
        faults = tuple(fault for fault in faults if fault not in TELLS_USAGE_OTHERWISE)
    return Scenario(seed, PINNED.get(seed, faults), when, reports)


SCENARIOS = tuple(scenario(seed) for seed in range(1, DAYS + 1))
