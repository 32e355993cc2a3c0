"""A page of a report: sums gathered into rows, rows in order, and where the next page begins.

A cursor holds the instant of the first page, and every page is made as of then: what is reported
meanwhile moves no row from one page to another. It is bound to its question and opaque to clients.
"""

import base64
import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import islice
from typing import Any, NamedTuple

from tallystick.sandbox.claude.errors import ApiError
from tallystick.sandbox.claude.report_figures import CostFigures, Figures, UsageFigures
from tallystick.sandbox.claude.report_questions import CostQuestion, Span, UsageQuestion
from tallystick.sandbox.claude.reports import MINUTE, Cell, Reports, Sum
from tallystick.sandbox.claude.used import Place

_DAY = 24 * 60
_Group = tuple[tuple[str, str | None], ...]
_Key = tuple[tuple[int, int], _Group]


class _Row(NamedTuple):
    """A bucket and a group, with their figures."""

    start: int
    end: int
    group: _Group
    figures: Figures

    def as_dicts(self, group_by: Iterable[str]) -> list[dict[str, Any]]:
        """Return it as JSON: one row, or one for each component."""
        ungrouped = dict.fromkeys(self.figures.dimensions)
        return [
            {
                "starting_at": _rfc3339(self.start),
                "ending_at": _rfc3339(self.end),
                "group": {**ungrouped, **dict(self.group), **component},
                **body,
            }
            for component, body in self.figures.rows(set(group_by))
        ]


class _Cursor(NamedTuple):
    question: str
    now: float
    after: int

    def written(self) -> str:
        return base64.urlsafe_b64encode(json.dumps(self).encode()).decode()


def report_page(
    reports: Reports, question: UsageQuestion | CostQuestion, now: float
) -> dict[str, Any]:
    """Return a page as the API has it.

    Raises:
        ApiError: 400 for a range that is not to be had, or a cursor of another question.
    """
    cursor = _cursor(question, now)
    span = question.span(datetime.fromtimestamp(cursor.now, UTC))
    watermark = reports.watermark(cursor.now)
    rows = _rows(reports, question, span, watermark)
    _put_in_order(rows, question)
    end = cursor.after + question.limit
    has_more = end < len(rows)
    return {
        "data": [
            each
            for row in islice(rows, cursor.after, end)
            for each in row.as_dicts(question.group_by)
        ],
        "has_more": has_more,
        "next_page": cursor._replace(after=end).written() if has_more else None,
        "data_refreshed_at": _rfc3339(watermark),
    }


def _rows(
    reports: Reports, question: UsageQuestion | CostQuestion, span: Span, watermark: int
) -> list[_Row]:
    figures = _figures(question)
    dimensions = [name for name in Place._fields if name in question.group_by]
    gathered = defaultdict[_Key, defaultdict[tuple[Cell, int], Sum]](lambda: defaultdict(Sum))
    for minute, cell, total in reports.cells(span.start, min(span.end, watermark)):
        if not question.wants(cell.place) or (figures.charged_only and cell.terms is None):
            continue
        group = tuple((name, getattr(cell.place, name)) for name in dimensions)
        sums = gathered[span.bucket(minute), group]
        sums[cell, minute // _DAY].add(total.requests, total.tokens)
    return [
        _Row(start, end, group, figures(sums)) for ((start, end), group), sums in gathered.items()
    ]


def _put_in_order(rows: list[_Row], question: UsageQuestion | CostQuestion) -> None:
    """Sort by metric or by time; what ties goes by bucket and group, so that pages are stable."""
    by_time = question.order_by == "time" and question.time_bucket_width is not None
    downwards = question.order == "desc"
    default = _figures(question).default_metric
    metric = default if question.order_by == "time" else question.order_by
    rows.sort(key=lambda row: (row.start, str(row.group)))
    rows.sort(key=lambda row: row.figures.metric(metric), reverse=by_time or downwards)
    if by_time:
        rows.sort(key=lambda row: row.start, reverse=downwards)


def _figures(question: UsageQuestion | CostQuestion) -> type[Figures]:
    return CostFigures if isinstance(question, CostQuestion) else UsageFigures


def _cursor(question: UsageQuestion | CostQuestion, now: float) -> _Cursor:
    asked = question.model_dump_json(exclude={"page", "limit"})
    digest = hashlib.sha256(asked.encode()).hexdigest()[:16]
    if question.page is None:
        return _Cursor(digest, now, 0)
    try:
        cursor = _Cursor(*json.loads(base64.urlsafe_b64decode(question.page)))
    except (ValueError, TypeError):
        cursor = None
    if cursor is None or cursor.question != digest:
        raise ApiError(400, "page: not a cursor of this report")
    return cursor


def _rfc3339(minute: int) -> str:
    return datetime.fromtimestamp(minute * MINUTE, UTC).isoformat().replace("+00:00", "Z")
