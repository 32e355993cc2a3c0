"""Lists as the API shows them: pages, and spans of time to list by."""

from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tallystick.sandbox.stripe.wire import Obj, Params, Refusal


class Paging(Params):
    """The parameters that every list has."""

    limit: Annotated[int, Field(ge=1, le=100)] = 10
    starting_after: str | None = None
    ending_before: str | None = None


class Span(BaseModel):
    """Bounds in Unix seconds."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    gt: int | None = None
    gte: int | None = None
    lt: int | None = None
    lte: int | None = None


def within(instant: float, span: Span | int | None) -> bool:
    """Say whether an instant lies in a span, or is the one asked for."""
    if span is None or isinstance(span, int):
        return span in (None, instant)
    return (
        (span.gt is None or instant > span.gt)
        and (span.gte is None or instant >= span.gte)
        and (span.lt is None or instant < span.lt)
        and (span.lte is None or instant <= span.lte)
    )


def page(url: str, objects: Iterable[Obj], paging: Paging) -> Obj:
    """Return one page of a list, in the order given."""
    rows = list(objects)
    ids = [row["id"] for row in rows]
    backwards = paging.ending_before is not None
    try:
        if paging.starting_after is not None:
            rows = rows[ids.index(paging.starting_after) + 1 :]
        if paging.ending_before is not None:
            rows = rows[: ids.index(paging.ending_before)]
    except ValueError:
        raise Refusal(400, "No such object to page from.", code="resource_missing") from None
    data = rows[-paging.limit :] if backwards else rows[: paging.limit]
    return {"object": "list", "url": url, "has_more": len(rows) > len(data), "data": data}


def whole(url: str, rows: list[Obj], shown: int = 10) -> Obj:
    """Return a list inside an object: its first rows, and whether there are more."""
    return {"object": "list", "url": url, "has_more": len(rows) > shown, "data": rows[:shown]}
