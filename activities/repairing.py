"""What a repair works with and what comes of it: the words that all repairs share.

A repair has two parts. `look` reads, decides and changes nothing; it is all that a dry run does.
`act` follows only where `look` has found it ready, after a row that says so was committed, and may
be done again by somebody who does not know how far the first one came. Each repair's file says why
that does no harm.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from activities.stripe_clients import Refusal
from tallystick.ledger.reconciliation_tables import Discrepancy, Repair


@dataclass(frozen=True, slots=True)
class Case:
    """One subject of a proposal, and under what circumstances it is looked at.

    `facts` are the proposal's, `by` is `automatic` or `operator`, and `reconciliation_id` the run
    that it is done in or was found by.
    """

    discrepancy: Discrepancy
    subject: str
    facts: Mapping[str, Any]
    by: str
    reconciliation_id: int
    now: datetime

    @property
    def discrepancy_id(self) -> int:
        """Whose subject it is."""
        found = self.discrepancy.discrepancy_id
        assert found is not None  # noqa: S101 - it was read
        return found


@dataclass(frozen=True, slots=True)
class Ready:
    """It can be done, and `words` say what would be."""

    words: str


@dataclass(frozen=True, slots=True)
class Done:
    """It was done, or shows to have been."""

    words: str


@dataclass(frozen=True, slots=True)
class Refused:
    """It cannot be done, for good; `words` say why, and what else can."""

    words: str


@dataclass(frozen=True, slots=True)
class Later:
    """It cannot be done or judged yet; `trouble` is what Stripe answered, if that is why."""

    words: str
    trouble: Refusal | None = None


Outcome = Done | Refused | Later


class RepairStep(Protocol):
    """One kind of repair, of one subject at a time."""

    async def look(self, case: Case) -> Ready | Outcome:
        """Tell what would be done; changes nothing."""
        ...

    async def act(self, case: Case, begun: Repair) -> Outcome:
        """Do it; may have been done before by somebody who died."""
        ...
