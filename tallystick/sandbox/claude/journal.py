"""What was served, in the order served: Claude's side of the tally.

A row is written when the work is done and before the answer leaves, so a client that dies or is
cut off cannot keep a served request out of it; whether the answer arrived is added afterwards. Rows
hold no text of prompt or reply, only the digest of the body. Everything stays in memory; a row
costs about a kilobyte.
"""

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from tallystick.sandbox.claude.replies import Reply
from tallystick.sandbox.claude.tokens import Tokens

Delivered = Literal["yes", "no", "unknown"]


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
    """

    def __init__(self, clock: Callable[[], float]):
        self._clock = clock
        self._rows: list[Row] = []
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
        row = Row(
            request_id=request_id,
            message_id=reply.id,
            model=reply.model,
            served_at=self._clock(),
            usage=json.dumps(reply.usage(), separators=(",", ":")),
            served=reply.served,
            billable=reply.billable,
            stop_reason=reply.stop_reason,
            streamed=streamed,
            fault=fault,
            body_sha256=hashlib.sha256(raw).hexdigest(),
            key_last4=sys.intern(key[-4:]),
        )
        self._rows.append(row)
        return row

    def refuse(self, what: str) -> None:
        """Count a request that was not served."""
        self._not_served[what] += 1

    def page(self, after: int, limit: int) -> dict[str, Any]:
        """Return up to `limit` rows behind the first `after`, and where the next page begins."""
        rows = [row.as_dict() for row in islice(self._rows, after, after + limit)]
        end = after + len(rows)
        return {"rows": rows, "next": end if end < len(self._rows) else None}

    def totals(self) -> dict[str, Any]:
        """Return requests and tokens per kind: served, and billable with how it was delivered.

        What was served and is not billable was free: it is their difference.
        """
        served, billable = _Sum(), _Sum()
        delivery: dict[Delivered, _Sum] = {"yes": _Sum(), "no": _Sum(), "unknown": _Sum()}
        for row in self._rows:
            served.add(row.served)
            if row.billable != Tokens():
                billable.add(row.billable)
                delivery[row.delivered].add(row.billable)
        return {
            "served": served.as_dict(),
            "billable": billable.as_dict(),
            "billable_by_delivery": {name: each.as_dict() for name, each in delivery.items()},
            "not_served": dict(self._not_served),
        }


class _Sum:
    def __init__(self) -> None:
        self.requests, self.tokens = 0, Tokens()

    def add(self, tokens: Tokens) -> None:
        self.requests += 1
        self.tokens += tokens

    def as_dict(self) -> dict[str, int]:
        return {"requests": self.requests, **self.tokens.as_dict()}
