"""One Stripe account in memory: its objects, its meter journal and its clock.

Objects are the JSON that the API shows, kept by id in a table per kind; a new resource needs no
change here. Everything happens on one event loop and between two awaits, so no locks.
"""

import asyncio
import secrets
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

from tallystick.sandbox.clock import Clock
from tallystick.sandbox.stripe.dunning import Dunning
from tallystick.sandbox.stripe.journal import Journal
from tallystick.sandbox.stripe.timeline import Timeline
from tallystick.sandbox.stripe.wire import Obj, Refusal

ARRIVALS_KEPT = 10_000
"""Calls whose instants are remembered."""


class Account:
    """What one sandbox knows.

    Args:
        clock: tells the time until it is set; everything is judged by it.
        summary_lag: seconds from the receipt of an event until summaries show it.
        event_seconds: how long one meter event occupies its customer and meter.
    """

    def __init__(self, clock: Clock, *, summary_lag: float = 0, event_seconds: float = 0.001):
        self.clock = Timeline(clock)
        self.summary_lag = summary_lag
        self.event_seconds = event_seconds
        self.journal = Journal()
        self.sessions: dict[str, float] = {}
        """Stream tokens, each with the instant it expires."""
        self.calls: Counter[str] = Counter()
        """HTTP calls by method and path template."""
        self.arrivals: deque[tuple[float, str]] = deque(maxlen=ARRIVALS_KEPT)
        """The newest of them, each with when it came in real Unix seconds."""
        self.dunning = Dunning()
        """How failed payments are tried again."""
        self.on_event: list[Callable[[Obj | None, Obj], None]] = []
        """Who is told of a new event, if it is a v1 one, and of its thin twin."""
        self._tables: defaultdict[str, dict[str, Obj]] = defaultdict(dict)
        self._busy: set[tuple[str, str]] = set()

    def arrived(self, call: str) -> None:
        """Note an HTTP call, by its method and path template."""
        self.calls[call] += 1
        self.arrivals.append((time.time(), call))

    def now(self) -> int:
        """Return the time in whole seconds, as Stripe's objects carry it."""
        return int(self.clock())

    def table(self, kind: str) -> dict[str, Obj]:
        """Return the objects of a kind by id, oldest first."""
        return self._tables[kind]

    def add(self, kind: str, prefix: str, obj: Obj) -> Obj:
        """Keep a new object, under its own id or a fresh one.

        Raises:
            Refusal: 400 when the id is taken.
        """
        # Random, so that no id means another object after a restart.
        made = {"id": f"{prefix}_{secrets.token_hex(8)}", **obj}
        if made["id"] in self.table(kind):
            raise Refusal(
                400, f"{kind} already exists.", code="resource_already_exists", param="id"
            )
        self.table(kind)[made["id"]] = made
        return made

    def get(self, kind: str, object_id: str, *, param: str = "id", status: int = 404) -> Obj:
        """Return one object.

        Raises:
            Refusal: `resource_missing`, 404 unless the id came in a parameter (400).
        """
        try:
            return self.table(kind)[object_id]
        except KeyError:
            raise Refusal(
                status, f"No such {kind}: '{object_id}'", code="resource_missing", param=param
            ) from None

    @asynccontextmanager
    async def lane(self, customer: str, event_name: str) -> AsyncGenerator[None, None]:
        """Occupy a customer and meter while one event is taken in.

        Raises:
            Refusal: 429 when another event of the pair is being taken in.
        """
        pair = (customer, event_name)
        if pair in self._busy:
            raise Refusal(
                429,
                "Cannot create multiple usage events for the same customer, meter concurrently.",
                code="too_many_concurrent_requests",
                headers={"Stripe-Rate-Limited-Reason": "resource-specific"},
            )
        self._busy.add(pair)
        try:
            await asyncio.sleep(self.event_seconds)
            yield
        finally:
            self._busy.discard(pair)
