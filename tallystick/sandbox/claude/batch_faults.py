"""What can go wrong with a batch alone: with single items, and with the file of results.

A rule for an item matches its request as compact ASCII JSON, `{"custom_id":...,"params":...}`; a
rate draws for each item, so it is a share of them. Both are decided when the batch is made. The
faults of `faults` that reshape a reply strike items too, and those that refuse, lose or delay a
request strike the calls about batches.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Literal

from pydantic import Field
from typing_extensions import override

from tallystick.sandbox.claude.batch_items import EXPIRED, Unserved
from tallystick.sandbox.claude.errors import ConnectionCut
from tallystick.sandbox.claude.faults import ClaudeFault, Count, Place
from tallystick.sandbox.claude.streaming import Part

_ITEMS: frozenset[Place] = frozenset({"item"})
_RESULTS: frozenset[Place] = frozenset({"results"})


# --- One item of a batch --------------------------------------------------------------------------
class ItemFault(ClaudeFault):
    """An item that is not served."""

    strikes = _ITEMS

    def instead(self) -> Unserved:
        """Return what becomes of the item."""
        raise NotImplementedError


class ItemErrored(ItemFault):
    """The item errors in a way that passes: sent again it may succeed."""

    name = "item_errored"

    error: Literal["overloaded_error", "api_error", "rate_limit_error", "timeout_error"] = (
        "overloaded_error"
    )

    @override
    def instead(self) -> Unserved:
        return Unserved("errored", self.error, "A fault that was asked for")


class ItemInvalid(ItemFault):
    """The item errors for good: sent again it errs again, unless a rate draws otherwise."""

    name = "item_invalid"

    message: str = "A fault that was asked for"

    @override
    def instead(self) -> Unserved:
        return Unserved("errored", "invalid_request_error", self.message)


class ItemExpired(ItemFault):
    """The item expires, although its batch ends in time."""

    name = "item_expired"

    @override
    def instead(self) -> Unserved:
        return EXPIRED


# --- The file of results --------------------------------------------------------------------------
class _BrokenResults(ClaudeFault):
    """Goes wrong behind `after_bytes` or else `after_lines`; if all are fewer, before the last."""

    strikes = _RESULTS

    after_lines: Count = 100
    after_bytes: Count | None = None

    def _beginning(self, parts: Iterator[Part]) -> Iterator[Part]:
        left = self.after_bytes
        for lines, part in enumerate(parts):
            if left is None:
                if lines == self.after_lines or part.last:
                    return
            elif len(part.data) > left:
                yield Part(part.data[:left])
                return
            else:
                left -= len(part.data)
            yield replace(part, last=False)


class CutResults(_BrokenResults):
    """The connection is cut: `reset`, or closed in the middle of the answer."""

    name = "cut_results"

    how: Literal["reset", "close"] = "reset"

    @override
    def disturb(self, parts: Iterator[Part]) -> Iterator[Part]:
        yield from self._beginning(parts)
        raise ConnectionCut(reset=self.how == "reset")


class TruncatedResults(_BrokenResults):
    """The answer ends tidily before all lines were sent: behind a line nothing tells."""

    name = "truncated_results"

    @override
    def disturb(self, parts: Iterator[Part]) -> Iterator[Part]:
        yield from self._beginning(parts)


class StalledResults(ClaudeFault):
    """The answer pauses for `seconds` behind `after_lines`, then goes on to its end."""

    name = "stalled_results"
    strikes = _RESULTS

    after_lines: Count = 100
    seconds: Annotated[float, Field(ge=0)] = 5.0

    @override
    def disturb(self, parts: Iterator[Part]) -> Iterator[Part]:
        for lines, part in enumerate(parts):
            yield replace(part, pause=self.seconds) if lines == self.after_lines else part


BATCH_FAULTS: tuple[type[ClaudeFault], ...] = (
    ItemErrored,
    ItemInvalid,
    ItemExpired,
    CutResults,
    TruncatedResults,
    StalledResults,
)
"""All of them, by `name` in the control API."""
