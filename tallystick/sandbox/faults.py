"""Faults on demand: which request is hit by which fault, decided so that a run can be repeated.

Two ways to ask. A *rule* hits requests whose raw body contains a text, a stated number of times. A
*rate* hits a share of all requests: the draw is a hash of the seed, the request and how often this
very request was seen, so the same traffic meets the same faults whatever the order of arrival, and
a retry draws anew. Rules come first; a request meets at most one fault.

What a fault does is its stand-in's business: each declares its faults as `Fault` classes.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Generic

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypeVar


class Fault(BaseModel):
    """Base of every fault; fields of a subclass are its options, all with a default."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: ClassVar[str]


F = TypeVar("F", bound=Fault, default=Fault)


class FaultRule(BaseModel):
    """Hit requests whose raw body contains `match`; `times` None means always."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    fault: str
    match: str = ""
    times: Annotated[int, Field(ge=1)] | None = 1
    options: dict[str, Any] = Field(default_factory=dict[str, Any])


class FaultOrder(BaseModel):
    """What is asked for: rules, and probabilities by fault name that add up to 1 at most."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rules: tuple[FaultRule, ...] = ()
    rates: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict[str, float])
    seed: int = 0


class BadFaultOrderError(ValueError):
    """An order names a fault or an option that the stand-in does not have."""


class _Armed(Generic[F]):
    """One rule with its fault ready and what is left of its times."""

    def __init__(self, rule: FaultRule, fault: F):
        self.rule, self.fault, self.left = rule, fault, rule.times
        self._match = rule.match.encode()

    def take(self, request: bytes, fits: Callable[[F], bool]) -> bool:
        if self.left == 0 or self._match not in request or not fits(self.fault):
            return False
        if self.left is not None:
            self.left -= 1
        return True


def _always(_: Fault) -> bool:
    return True


class Faults(Generic[F]):
    """The faults of one stand-in: what is armed, and what was applied."""

    def __init__(self, kinds: Iterable[type[F]], order: FaultOrder | None = None):
        self._kinds = {kind.name: kind for kind in kinds}
        self.clear()
        if order is not None:
            self.add(order)

    def add(self, order: FaultOrder) -> None:
        """Arm the rules behind those already armed; rates, where given, replace the rates.

        Raises:
            BadFaultOrderError: nothing of the order is armed then.
        """
        armed = [_Armed(rule, self._fault(rule.fault, rule.options)) for rule in order.rules]
        rates = [(self._fault(name, {}), share) for name, share in order.rates.items()]
        if sum(share for _, share in rates) > 1:
            raise BadFaultOrderError("rates: the probabilities add up to more than 1")
        self._armed += armed
        if rates:
            self._rates, self._seed, self._seen = rates, order.seed, Counter[bytes]()

    def clear(self) -> None:
        """Disarm everything and forget what was applied."""
        self._armed: list[_Armed[F]] = []
        self._rates: list[tuple[F, float]] = []
        self._seed = 0
        self._seen = Counter[bytes]()
        self._applied = Counter[str]()

    def pick(self, request: bytes, fits: Callable[[F], bool] = _always) -> F | None:
        """Return the fault that this request meets, if any; counts it as applied.

        `request` is the raw body, or whatever else makes a request recognisable. A fault that does
        not fit the kind of request passes it by, with its times unspent.
        """
        fault = self._by_rule(request, fits) or self._by_rate(request, fits)
        if fault is not None:
            self._applied[fault.name] += 1
        return fault

    def state(self) -> dict[str, Any]:
        """Return what is armed and what was applied, as JSON."""
        return {
            "rules": [{**armed.rule.model_dump(), "left": armed.left} for armed in self._armed],
            "rates": {fault.name: share for fault, share in self._rates},
            "seed": self._seed,
            "applied": dict(self._applied),
            "known": {name: kind.model_json_schema() for name, kind in self._kinds.items()},
        }

    def _fault(self, name: str, options: dict[str, Any]) -> F:
        kind = self._kinds.get(name)
        if kind is None:
            raise BadFaultOrderError(f"no fault {name!r}; known: {', '.join(sorted(self._kinds))}")
        try:
            return kind(**options)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"]) or "options"
            raise BadFaultOrderError(f"{name}: {where}: {first['msg']}") from None

    def _by_rule(self, request: bytes, fits: Callable[[F], bool]) -> F | None:
        return next((armed.fault for armed in self._armed if armed.take(request, fits)), None)

    def _by_rate(self, request: bytes, fits: Callable[[F], bool]) -> F | None:
        if not self._rates:
            return None
        digest = hashlib.sha256(request).digest()
        turn = self._seen[digest]
        self._seen[digest] += 1
        drawn = hashlib.sha256(f"{self._seed}:{turn}:".encode() + digest).digest()
        draw = int.from_bytes(drawn[:8], "big") / 2**64
        for fault, share in self._rates:
            if draw < share:
                return fault if fits(fault) else None
            draw -= share
        return None
