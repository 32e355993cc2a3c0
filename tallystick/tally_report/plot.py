"""One series as an SVG: three records over time, and under them by how much they differ.

Records that tally lie on each other, so they are drawn to be told apart all the same: the ledger as
a filled shape, Claude as a line around it, Stripe as a dashed one on top. What they differ by
has a scale of its own below; without it, a hundred tokens would not show beside a million.

Widths are those of a telephone; where there is room, two stand side by side. Colours are named in
the page's style, which knows of dark screens, and no meaning is in colour alone: `title` and `desc`
say in words what is drawn.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from html import escape

from tallystick.tally_report.series import COMPARED, DAY, SIDES, Series, Side, amount

WIDTH, HEIGHT = 400, 236
_LEFT, _RIGHT = 4, 396
_TOP, _FLOOR = 30, 136
"""Of the records."""
_MIDDLE, _REACH = 186, 26
"""Of the differences: where none is drawn, and how far the largest goes."""
_THINNEST = 2.0
"""What a bar is drawn with at the least, however small the difference or short the hour."""
_MOST_DATES = 4
_LAST_DATE = 362
"""Where the last date may begin at the latest, to be drawn whole."""

STYLE = """
svg .ledger { fill: var(--ledger); fill-opacity: .35; }
svg .claude { fill: none; stroke: var(--claude); stroke-width: 2.5; }
svg .stripe { fill: none; stroke: var(--stripe); stroke-width: 1.5; stroke-dasharray: 3 3; }
svg .less-claude { fill: var(--claude); } svg .less-stripe { fill: var(--stripe); }
svg .axis { stroke: var(--rule); stroke-width: 1; }
svg .tick { stroke: var(--hair); stroke-width: 1; }
svg text { font: 12px system-ui, sans-serif; fill: var(--faint); }
svg text.even { fill: var(--ink); }
"""


def plot(series: Series, name: str) -> str:
    """Draw the series; `name` is unique on the page."""
    return "\n".join(_drawing(series, name))


def _drawing(series: Series, name: str) -> Iterator[str]:
    yield (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-labelledby="{name}-t {name}-d" '
        'xmlns="http://www.w3.org/2000/svg">'
    )
    by = "day" if series.step == DAY else "hour"
    yield f'<title id="{name}-t">{escape(series.title)} by the {by}</title>'
    yield f'<desc id="{name}-d">{escape(described(series))}</desc>'
    yield from _dates(series)
    yield from _records(series)
    yield from _differences(series)
    yield "</svg>"


def described(series: Series) -> str:
    """Say in words what the plot shows."""
    said = [
        f"{SIDES[side]} {amount(series.unit, known)}"
        for side in SIDES
        if (known := series.total(side)) is not None
    ]
    sentences = [f"In all: {', '.join(said)}."] if said else []
    for side, other in COMPARED:
        found = [each for each in series.differences[side] if each is not None]
        pair = f"{SIDES[side]} and {SIDES[other]}"
        if apart := [each for each in found if each]:
            most = amount(series.unit, max(map(abs, apart)))
            where = "place" if len(apart) == 1 else "places"
            sentences.append(f"{pair} differ in {len(apart)} {where}, by {most} at the most.")
        elif found:
            sentences.append(f"{pair} are equal throughout.")
        else:
            sentences.append(f"{pair} were not compared.")
    return " ".join(sentences)


# --- The records ----------------------------------------------------------------------------------
def _records(series: Series) -> Iterator[str]:
    drawn: tuple[Side, ...] = ("ledger", "claude", "stripe")
    most = max((each or 0 for side in drawn for each in series.sides[side]), default=0)
    yield f'<text x="{_LEFT}" y="{_TOP - 12}">at most {escape(amount(series.unit, most))}</text>'
    yield _line("axis", _FLOOR)
    if most:
        for side in drawn:
            path = _steps(series.sides[side], most, closed=side == "ledger")
            yield f'<path class="{side}" d="{path}"/>'


def _steps(values: Sequence[int | None], most: int, *, closed: bool) -> str:
    """Return the steps as a path; a closed one stands on the floor. It has a gap at each None."""
    width = (_RIGHT - _LEFT) / len(values)
    path: list[str] = []
    down = True
    for index, value in enumerate(values):
        if value is None:
            if not down and closed:
                path.append(f"V{_FLOOR}")
            down = True
            continue
        x, y = _LEFT + index * width, _FLOOR - (_FLOOR - _TOP) * max(value, 0) / most
        start = f"M{x:.1f} {_FLOOR}V{y:.1f}" if closed else f"M{x:.1f} {y:.1f}"
        path.append(f"{start if down else f'V{y:.1f}'}H{x + width:.1f}")
        down = False
    if closed and not down:
        path.append(f"V{_FLOOR}")
    return "".join(path)


# --- By how much they differ ----------------------------------------------------------------------
def _differences(series: Series) -> Iterator[str]:
    yield _line("axis", _MIDDLE)
    known = [each for side, _ in COMPARED for each in series.differences[side] if each is not None]
    most = max(map(abs, known), default=0)
    words = "not compared" if not known else "no difference"
    if most:
        words = f"differ by up to {amount(series.unit, most)}"
        for place, (side, _) in enumerate(COMPARED):
            yield from _bars(series.differences[side], most, side, place)
    kind = "" if most else ' class="even"'
    yield f'<text x="{_LEFT}" y="{_MIDDLE - _REACH - 6}"{kind}>{escape(words)}</text>'


def _bars(values: Sequence[int | None], most: int, side: Side, place: int) -> Iterator[str]:
    slot = (_RIGHT - _LEFT) / len(values)
    width = max(slot / len(COMPARED), _THINNEST)
    for index, value in enumerate(values):
        if value:
            height = max(_REACH * abs(value) / most, _THINNEST)
            x = min(_LEFT + index * slot + place * slot / len(COMPARED), _RIGHT - width)
            y = _MIDDLE - height if value > 0 else _MIDDLE
            yield (
                f'<rect class="less-{side}" x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" '
                f'height="{height:.1f}"/>'
            )


# --- When -----------------------------------------------------------------------------------------
def _dates(series: Series) -> Iterator[str]:
    count = len(series.sides["ledger"])
    width = (_RIGHT - _LEFT) / count
    instants = [series.start + index * series.step for index in range(count)]
    midnights = [index for index, at in enumerate(instants) if at.hour == 0]
    marks = midnights if len(midnights) > 1 else range(count)
    every = -(-len(marks) // _MOST_DATES)
    for index in list(marks)[::every]:
        x = _LEFT + index * width
        yield f'<path class="tick" d="M{x:.1f} {_TOP}V{_MIDDLE + _REACH}"/>'
        written = _date(instants[index], day=len(midnights) > 1)
        yield f'<text x="{min(x, _LAST_DATE):.1f}" y="{HEIGHT - 6}">{written}</text>'


def _date(at: datetime, *, day: bool) -> str:
    return f"{at:%m-%d}" if day else f"{at:%H:%M}"


def _line(kind: str, y: int) -> str:
    return f'<path class="{kind}" d="M{_LEFT} {y}H{_RIGHT}"/>'
