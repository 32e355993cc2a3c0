"""Sends webhooks over real HTTP: signed, tried again for three days, disturbed on demand.

An event is put into the post where it is emitted and sent beside the call that caused it, so a
webhook may arrive before the answer does. Times between attempts are those of the sandbox's clock;
a signature is dated by real time, which is what a receiver compares it with. Only loopback
addresses are ever called: any other counts as a host that does not answer.
"""

import asyncio
import hashlib
import hmac
import ipaddress
import json
import random
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx

from tallystick.sandbox.stripe import events, webhook_endpoints
from tallystick.sandbox.stripe.account import Account
from tallystick.sandbox.stripe.disturbances import CLEAN, Disturbance, Manner, Resend
from tallystick.sandbox.stripe.versions import as_of
from tallystick.sandbox.stripe.wire import Obj, public

_HOUR = 3600
LIVE_DELAYS = (300, 1800, 2 * _HOUR, 5 * _HOUR, 10 * _HOUR, *[12 * _HOUR] * 4)
"""Seconds after each failed attempt, three days in all; the exact steps are not documented."""
TEST_DELAYS = (_HOUR, 2 * _HOUR)
"""In test mode: three attempts in hours."""

_TIMEOUT = 20.0
_AT_ONCE = 32
_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Made once: a client would load all certificates for each burst of plain HTTP."""


@dataclass(slots=True)
class Delivery:
    """One event for one endpoint."""

    endpoint: str
    form: str
    payload: Obj
    event: Obj | None
    """The whole event of which this is, if there is one."""
    attempts: int = 0


class Courier:
    """The post of one account.

    Args:
        account: whose events it carries.
        delivered: told of a whole event when its last webhook was answered.
    """

    def __init__(self, account: Account, delivered: Callable[[Obj], None]):
        self.journal: list[Obj] = []
        """Every attempt, in the order of their ends."""
        self.disturbances: list[Disturbance] = []
        self._account, self._delivered = account, delivered
        self._struck: dict[int, int] = {}
        self._random = random.Random(1)  # noqa: S311 - so that a run repeats
        self._under_way: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(_AT_ONCE)
        self._http: httpx.AsyncClient | None = None
        self._users = 0
        account.on_event.append(self.take)

    def disturb(self, disturbance: Disturbance) -> None:
        """Disturb events from now on; the first disturbance that fits strikes."""
        self.disturbances.append(disturbance)

    def calm(self) -> None:
        """Disturb nothing any more."""
        self.disturbances.clear()
        self._struck.clear()

    def take(self, event: Obj | None, thin: Obj) -> None:
        """Post an event and its thin twin to all who listen."""
        deliveries = self._address(event, thin)
        disturbance = self._strike(_type(thin))
        if disturbance is None:
            self._send_all(deliveries, CLEAN)
        elif disturbance.drop:
            for delivery in deliveries:
                self._note(delivery, CLEAN, dropped=True)
        else:
            self._send_after(disturbance.delay, deliveries, disturbance)
            if disturbance.twice and event is not None:
                second = self._address(*events.twin(self._account, event))
                self._send_all(second, disturbance)

    def _address(self, event: Obj | None, thin: Obj) -> list[Delivery]:
        """Return the deliveries of an event to all who listen, and have it wait for them."""
        deliveries = self._deliveries(event, thin)
        waiting = {delivery.endpoint for delivery in deliveries}
        thin["_waiting"] = waiting
        if event is not None:
            event |= {"_waiting": waiting, "pending_webhooks": len(waiting)}
        return deliveries

    def _deliveries(self, event: Obj | None, thin: Obj) -> list[Delivery]:
        return [
            Delivery(endpoint["id"], form, payload, event)
            for form, payload in (("snapshot", event), ("thin", thin))
            if payload is not None
            for endpoint in webhook_endpoints.listening(self._account, _type(thin), form)
        ]

    def _strike(self, type: str) -> Disturbance | None:
        for number, disturbance in enumerate(self.disturbances):
            times = self._struck.get(number, 0)
            if disturbance.times is not None and times >= disturbance.times:
                continue
            if disturbance.fits(type) and self._random.random() < disturbance.share:
                self._struck[number] = times + 1
                return disturbance
        return None

    async def resend(self, order: Resend) -> int:
        """Send old events again, and return when all were answered; returns how many sendings."""
        rows = self._account.table("event")
        wanted = rows if order.events is None else order.events
        deliveries = [
            delivery
            for event in (rows[each] for each in wanted)
            if events.matches(event["type"], list(order.types))
            for delivery in self._deliveries(event, event["_thin"])
            if order.endpoint in (None, delivery.endpoint)
        ]
        self._random.shuffle(deliveries)
        await asyncio.gather(*self._send_all(deliveries, order))
        return len(deliveries) * order.copies

    async def settled(self) -> None:
        """Return when nothing is under way."""
        while self._under_way:
            await asyncio.gather(*self._under_way)

    def state(self) -> Obj:
        """Return what is under way and what disturbs, as JSON."""
        return {
            "under_way": len(self._under_way),
            "disturbances": [
                {**each.model_dump(), "struck": self._struck.get(number, 0)}
                for number, each in enumerate(self.disturbances)
            ],
        }

    def _send_all(self, deliveries: Iterable[Delivery], manner: Manner) -> list[asyncio.Task[None]]:
        tasks: list[asyncio.Task[None]] = []
        for delivery in deliveries:
            delivery.attempts += 1
            for copy in range(manner.copies):
                sending = self._send(delivery, manner, retried=copy == 0)
                task = asyncio.get_running_loop().create_task(sending)
                self._under_way.add(task)
                task.add_done_callback(self._under_way.discard)
                tasks.append(task)
        return tasks

    async def _send(self, delivery: Delivery, manner: Manner, *, retried: bool) -> None:
        if manner.shuffle_seconds:
            await asyncio.sleep(self._random.random() * manner.shuffle_seconds)
        endpoint = self._account.table("webhook_endpoint").get(delivery.endpoint)
        if endpoint is None:
            self._answered(delivery)  # nobody is left to wait for
            return
        status, error = await self._post(delivery, endpoint, manner)
        self._note(delivery, manner, status=status, error=error)
        if status is not None and 200 <= status < 300:  # noqa: PLR2004
            self._answered(delivery)
        elif retried:
            self._try_again(delivery)

    async def _post(
        self, delivery: Delivery, endpoint: Obj, manner: Manner
    ) -> tuple[int | None, str | None]:
        """Return the status of the answer, or why there is none."""
        if not _is_loopback(endpoint["url"]):
            return None, "only loopback addresses are called"
        body = json.dumps(_payload(delivery, manner.api_version or endpoint["api_version"]))
        headers = {"Content-Type": "application/json; charset=utf-8", "User-Agent": "Stripe/1.0"}
        keys = webhook_endpoints.secrets_of(self._account, endpoint)
        if (signature := _signature(body, keys, manner)) is not None:
            headers["Stripe-Signature"] = signature
        try:
            async with self._slots, self._client() as http:
                answer = await http.post(endpoint["url"], content=body, headers=headers)
        except httpx.HTTPError as error:
            return None, type(error).__name__
        return answer.status_code, None

    @asynccontextmanager
    async def _client(self) -> AsyncGenerator[httpx.AsyncClient, None]:
        """Lend the client of this burst; the last to bring it back closes it."""
        if self._http is None:
            self._http = httpx.AsyncClient(
                timeout=_TIMEOUT,
                limits=httpx.Limits(max_keepalive_connections=_AT_ONCE),
                trust_env=False,
                verify=_TLS,
            )
        self._users += 1
        try:
            yield self._http
        finally:
            self._users -= 1
            if not self._users:
                http, self._http = self._http, None
                await http.aclose()

    def _note(self, delivery: Delivery, manner: Manner, **result: Any) -> None:
        self.journal.append(
            {
                "number": len(self.journal) + 1,
                "event": delivery.payload["id"],
                "type": delivery.payload["type"],
                "form": delivery.form,
                "endpoint": delivery.endpoint,
                "attempt": delivery.attempts,
                "at": self._account.clock(),
                "signature": manner.signature,
                "status": None,
                "error": None,
                "dropped": False,
                **result,
            }
        )

    def _answered(self, delivery: Delivery) -> None:
        waiting: set[str] = delivery.payload["_waiting"]
        if delivery.endpoint not in waiting:
            return
        waiting.remove(delivery.endpoint)
        if delivery.event is not None:
            delivery.event["pending_webhooks"] = len(waiting)
            if not waiting:
                self._delivered(delivery.event)

    def _try_again(self, delivery: Delivery) -> None:
        delays = LIVE_DELAYS if delivery.payload["livemode"] else TEST_DELAYS
        if delivery.attempts <= len(delays):
            self._send_after(delays[delivery.attempts - 1], [delivery], CLEAN)

    def _send_after(self, seconds: float, deliveries: list[Delivery], manner: Manner) -> None:
        """Send what nobody has answered by then; without a delay, now."""

        def fall_due() -> None:
            waiting = [each for each in deliveries if each.endpoint in each.payload["_waiting"]]
            self._send_all(waiting, manner)

        if seconds:
            self._account.clock.at(self._account.clock() + seconds, fall_due)
        else:
            fall_due()


def _type(thin: Obj) -> str:
    """Return the v1 type of a thin event."""
    return thin["type"].removeprefix("v1.")


def _payload(delivery: Delivery, version: str) -> Obj:
    if delivery.form == "snapshot":
        return as_of(public(delivery.payload), version)
    return {key: value for key, value in public(delivery.payload).items() if key != "data"}


def _signature(body: str, keys: Iterable[str], manner: Manner) -> str | None:
    if manner.signature == "missing":
        return None
    if manner.signature == "garbled":
        return "t=,v1=?"
    if manner.signature == "wrong_secret":
        keys = ["whsec_of_somebody_else"]
    at = int(time.time()) + manner.signed_seconds
    signed = f"{at}.{body}".encode()
    digests = [hmac.new(key.encode(), signed, hashlib.sha256).hexdigest() for key in keys]
    return ",".join([f"t={at}", *(f"v1={digest}" for digest in digests)])


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
