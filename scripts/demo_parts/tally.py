"""Three records laid side by side: what Claude served, what the ledger charged, what Stripe took.

Only computes. Figures are compared per customer and never with a tolerance, so two mistakes cannot
cancel out in a sum. A call that Claude served and whose reply was lost on the way is billed to us
and to no customer: it is left out of Claude's figures, and every such call must stand in the
attempts table as one whose outcome is unknown. Otherwise nobody would know of it, and that fails
the tally too.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from tallystick.money import plain, total
from tallystick.pricing import TOKEN_KINDS

KINDS = tuple(kind.value for kind in TOKEN_KINDS)
COST = "cost_usd"
CHARGE = "charge_usd"

Figures = Mapping[tuple[str, str], Decimal]
"""One record's word: an amount by customer and kind, where a kind is one of `KINDS`, COST, CHARGE.
Absent is zero. Tokens are whole numbers, money is in US dollars."""
Pair = tuple[tuple[str, str], Decimal | int]
"""One summand of such figures."""


@dataclass(frozen=True, slots=True)
class Lost:
    """Calls that Claude served, or may have served, and that answered nobody."""

    unknown_outcomes: int
    """Attempts in the ledger that ended without a known outcome."""
    served: int | None = None
    """How many of them Claude served; None when Claude cannot be asked."""
    tokens: Mapping[str, int] = field(default_factory=dict[str, int])
    cost_usd: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Tally:
    """A run's counts and its three records."""

    requests: int
    answered: int
    billed: int
    """Answers with a charge: all but refusals, which Claude does not bill."""
    refused: int
    metered: int
    """Billed answers whose every meter event Stripe has acknowledged."""
    claude: Figures
    ledger: Figures
    stripe: Figures
    lost: Lost

    def differences(self) -> list[str]:
        """Return what does not tally, each in a sentence; empty when everything does."""
        return [
            *self._counts(),
            *_compare("Claude served", self.claude, "the ledger says", self.ledger, (*KINDS, COST)),
            *_compare(
                "the ledger charged", self.ledger, "Stripe accepted", self.stripe, (*KINDS, CHARGE)
            ),
        ]

    def _counts(self) -> Iterable[str]:
        if self.answered < self.requests:
            yield f"{self.requests - self.answered} of {self.requests} requests have no answer"
        if self.billed + self.refused != self.answered:
            yield (
                f"{self.answered} answers, but {self.billed} bills and {self.refused} refusals "
                "that cost nothing"
            )
        if self.metered < self.billed:
            yield f"{self.billed - self.metered} of {self.billed} bills are not metered"
        if self.lost.served is not None and self.lost.served > self.lost.unknown_outcomes:
            yield (
                f"Claude served {self.lost.served} calls that answered nobody, and the ledger has "
                f"{self.lost.unknown_outcomes} calls with an unknown outcome"
            )

    def as_json(self) -> dict[str, Any]:
        """Return the object that `scripts/demo --json` prints."""
        differences = self.differences()
        return {
            "requests": self.requests,
            "answered": self.answered,
            "billed": self.billed,
            "metered": self.metered,
            "refused": self.refused,
            "claude_tokens": tokens(self.claude),
            "ledger_tokens": tokens(self.ledger),
            "stripe_tokens": tokens(self.stripe),
            "cost_usd": plain(amount(self.ledger, COST)),
            "charge_usd": plain(amount(self.ledger, CHARGE)),
            "stripe_usd": plain(amount(self.stripe, CHARGE)),
            "lost_attempts": {**asdict(self.lost), "cost_usd": plain(self.lost.cost_usd)},
            "tally": not differences,
            "differences": differences,
        }


def add_up(pairs: Iterable[Pair]) -> Figures:
    """Return the exact sums of the pairs by customer and kind."""
    grouped = defaultdict[tuple[str, str], list[Decimal]](list)
    for key, value in pairs:
        grouped[key].append(Decimal(value))
    return {key: total(values) for key, values in grouped.items()}


def amount(figures: Figures, kind: str) -> Decimal:
    """Return the sum of one kind over all customers."""
    return total(value for (_, each), value in figures.items() if each == kind)


def tokens(figures: Figures) -> dict[str, int]:
    """Return the sum of each kind of token over all customers."""
    return {kind: int(amount(figures, kind)) for kind in KINDS}


def _compare(
    said: str, ours: Figures, replied: str, theirs: Figures, kinds: Sequence[str]
) -> Iterable[str]:
    for customer in sorted({customer for customer, _ in (*ours, *theirs)}):
        for kind in kinds:
            one, other = ours.get((customer, kind), 0), theirs.get((customer, kind), 0)
            if one != other:
                yield f"{customer}, {kind}: {said} {one:,}, {replied} {other:,}"
