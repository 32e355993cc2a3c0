"""What was served, in the order served: Claude's side of the tally.

A row is written when the work is done and before the answer leaves, so a client that dies or is
cut off cannot keep a served request out of it; whether the answer arrived is added afterwards. Rows
hold no text of prompt or reply, only the digest of the body. Everything stays in memory; a row
costs about a kilobyte.

A batch is written down once, when it ended: the items that succeeded are their own rows, made out
when they are asked for, and their sum is kept, so that totals cost the same for a batch of any
size.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import Any, Literal, Protocol

from tallystick.sandbox.claude.keys import key_id
from tallystick.sandbox.claude.replies import Reply
from tallystick.sandbox.claude.tokens import Tokens
from tallystick.sandbox.claude.used import Used, used_by

Delivered = Literal["yes", "no", "unknown"]


class Entry(Protocol):
    """Whatever can be shown as a row and reported."""

    @property
    def used(self) -> tuple[Used, ...]:
        """What the reports are told of it."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON."""
        ...


@dataclass(slots=True)
class Sum:
    """Requests, and their tokens by kind."""

    requests: int = 0
    tokens: Tokens = field(default_factory=Tokens)

    def add(self, tokens: Tokens, requests: int = 1) -> None:
        """Count further requests."""
        self.requests += requests
        self.tokens += tokens

    def add_billable(self, tokens: Tokens) -> None:
        """Count a request unless nothing of it is billed."""
        if tokens != Tokens():
            self.add(tokens)

    def as_dict(self) -> dict[str, int]:
        """Return the figures by name."""
        return {"requests": self.requests, **self.tokens.as_dict()}


@dataclass(slots=True)
class BatchLot:
    """What the items of one batch have in common, and what those that succeeded add up to.

    `delivered` is `yes` once all of them were handed to an open connection.
    """

    batch_id: str
    key_last4: str
    key_id: str
    ended_at: float | None = None
    served: Sum = field(default_factory=Sum)
    billable: Sum = field(default_factory=Sum)
    delivered: Delivered = "unknown"

    def deliver(self) -> None:
        """Note that the whole file of results has left."""
        self.delivered = "yes"


@dataclass(slots=True)
class Row:
    """One served request.

    `delivered`: `yes` when the whole answer was handed to an open connection, `no` when it was not,
    `unknown` while it is on its way. Times are seconds since the epoch.
    """

    request_id: str
    message_id: str
    model: str
    served_at: float
    usage: str
    served: Tokens
    billable: Tokens
    stop_reason: str
    streamed: bool
    fault: str | None
    body_sha256: str
    key_last4: str
    used: tuple[Used, ...]
    delivered: Delivered = "unknown"

    def as_dict(self) -> dict[str, Any]:
        """Return the row as JSON."""
        return {
            "request_id": self.request_id,
            "message_id": self.message_id,
            "model": self.model,
            "served_at": self.served_at,
            "usage": json.loads(self.usage),
            "served": self.served.as_dict(),
            "billable": self.billable.as_dict(),
            "stop_reason": self.stop_reason,
            "streamed": self.streamed,
            "delivered": self.delivered,
            "fault": self.fault,
            "body_sha256": self.body_sha256,
            "key_last4": self.key_last4,
        }


class Journal:
    """Rows of what was served and counters of what was not.

    Args:
        clock: seconds since the epoch.
        report: told what each row used, as it is written.
    """

    def __init__(self, clock: Callable[[], float], report: Callable[[Iterable[Used]], None]):
        self._clock = clock
        self._report = report
        self._entries: list[Entry] = []
        self._singles: list[Row] = []
        self._lots: list[BatchLot] = []
        self._not_served = Counter[str]()

    def serve(
        self,
        reply: Reply,
        *,
        request_id: str,
        key: str,
        raw: bytes,
        streamed: bool,
        fault: str | None,
    ) -> Row:
        """Write down a reply that was made; the caller sets `delivered` when it knows."""
        now = self._clock()
        used = used_by(
            reply,
            at=now,
            key_id=key_id(key),
            product="messages_api",
            ids=(request_id, reply.id),
        )
        row = Row(
            request_id=request_id,
            message_id=reply.id,
            model=reply.model,
            served_at=now,
            usage=json.dumps(reply.usage(), separators=(",", ":")),
            served=reply.served,
            billable=reply.billable,
            stop_reason=reply.stop_reason,
            streamed=streamed,
            fault=fault,
            body_sha256=hashlib.sha256(raw).hexdigest(),
            key_last4=sys.intern(key[-4:]),
            used=used,
        )
        self._singles.append(row)
        self._entries.append(row)
        self._report(used)
        return row

    def serve_batch(self, lot: BatchLot, items: Sequence[Entry]) -> None:
        """Write down what a batch served."""
        self._lots.append(lot)
        self._entries += items
        self._report(chain.from_iterable(item.used for item in items))

    def refuse(self, what: str, times: int = 1) -> None:
        """Count requests that were not served."""
        self._not_served[what] += times

    def page(self, after: int, limit: int) -> dict[str, Any]:
        """Return up to `limit` rows behind the first `after`, and where the next page begins."""
        rows = [entry.as_dict() for entry in islice(self._entries, after, after + limit)]
        end = after + len(rows)
        return {"rows": rows, "next": end if end < len(self._entries) else None}

    def used(self) -> Iterator[Used]:
        """Return what all rows used."""
        return chain.from_iterable(entry.used for entry in self._entries)

    def totals(self) -> dict[str, Any]:
        """Return requests and tokens per kind: served, and billable with how it was delivered.

        What was served and is not billable was free: it is their difference.
        """
        served, batched = Sum(), Sum()
        delivery: dict[Delivered, Sum] = {"yes": Sum(), "no": Sum(), "unknown": Sum()}
        for row in self._singles:
            served.add(row.served)
            delivery[row.delivered].add_billable(row.billable)
        for lot in self._lots:
            served.add(lot.served.tokens, lot.served.requests)
            batched.add(lot.billable.tokens, lot.billable.requests)
            delivery[lot.delivered].add(lot.billable.tokens, lot.billable.requests)
        billable = Sum()
        for each in delivery.values():
            billable.add(each.tokens, each.requests)
        return {
            "served": served.as_dict(),
            "billable": billable.as_dict(),
            "billable_in_batches": batched.as_dict(),
            "billable_by_delivery": {name: each.as_dict() for name, each in delivery.items()},
            "not_served": dict(self._not_served),
        }
