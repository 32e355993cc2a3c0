"""Instants and spans of time as options: a date begins at midnight, UTC unless said otherwise."""

from datetime import UTC, datetime, tzinfo
from typing import NamedTuple

from tallystick.cli.output import fail


class Span(NamedTuple):
    """From `start` on, until before `end`."""

    start: datetime
    end: datetime


def read_instant(text: str, option: str, zone: tzinfo = UTC) -> datetime:
    """Read a date or an RFC 3339 instant, in `zone` where it has no offset; nothing is now."""
    if not text:
        return datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        fail(f"{option}: {text!r} is neither a date nor an instant, such as 2026-10-07")
    return instant if instant.tzinfo else instant.replace(tzinfo=zone)


def read_span(start: str, end: str, options: tuple[str, str] = ("--from", "--to")) -> Span:
    """Read the two ends of a span of time, which must hold something."""
    span = Span(read_instant(start, options[0]), read_instant(end, options[1]))
    if span.end <= span.start:
        fail(f"{options[1]}: {span.end:%Y-%m-%d %H:%M} is not after {span.start:%Y-%m-%d %H:%M}")
    return span
