"""What reconciliation has seen of a span of time, as one HTML page (`tallystick.html_pages`)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape

from tallystick.html_pages import heading, page, table
from tallystick.ledger.reconciliation_tables import (
    Discrepancy,
    DiscrepancyState,
    Reconciliation,
    Repair,
    TallyHour,
)
from tallystick.reconciling.findings import Cause, Pair, RepairKind
from tallystick.reconciling.words import CAUSES, CLAUDE_STATES, PAIRS, REPAIRS, how_much, when
from tallystick.statements.grid import Cell, Grid
from tallystick.tally_report.plot import STYLE as PLOT_STYLE
from tallystick.tally_report.plot import plot
from tallystick.tally_report.series import SIDES, Series, exact_amount, series_of

TITLE = "Do the records tally?"
_STYLE = f"""
:root {{ color-scheme: light dark; --claude: #b4530a; --ledger: #2563a8; --stripe: #0b6b50; }}
@media (prefers-color-scheme: dark) {{
  :root {{ --ink: #e8e6e3; --paper: #161618; --faint: #a8a6a2; --rule: #77757a; --hair: #333236;
          --fold: #4a494e; --foot: #8a888d; --claude: #f0995a; --ledger: #78aef0;
          --stripe: #58d0ad; }}
}}
.plots {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr));
         gap: 1.6rem 1.4rem; margin: 1rem 0; }}
figure {{ margin: 0; break-inside: avoid; }}
figcaption {{ font-weight: 600; margin-bottom: .2rem; }}
body {{ max-width: 62rem; }}
svg {{ display: block; width: 100%; height: auto; }}
.key {{ list-style: none; padding: 0; color: var(--faint); }}
.key svg {{ display: inline-block; width: 2.4rem; height: 1rem; vertical-align: middle;
           margin-right: .5rem; }}
{PLOT_STYLE}"""
_KEY = {
    "ledger": '<path class="ledger" d="M0 2H40V16H0Z"/>',
    "claude": '<path class="claude" d="M0 8H40"/>',
    "stripe": '<path class="stripe" d="M0 8H40"/>',
}
_KEY_WORDS = {
    "ledger": "what the ledger has served, lost calls included",
    "claude": "what Claude reports",
    "stripe": "what Stripe counts",
}
_NOTHING = "Nothing has been compared in this span yet; `tallystick reconcile` does it."


@dataclass(frozen=True, slots=True)
class Seen:
    """All that a page is made of: what the ledger knows of the span [start, end)."""

    start: datetime
    end: datetime
    hours: Sequence[TallyHour]
    runs: Sequence[Reconciliation]
    discrepancies: Sequence[Discrepancy]
    repairs: Mapping[int, Sequence[Repair]]
    """By discrepancy."""


def as_html(seen: Seen, as_of: datetime) -> str:
    """Write the page of a span."""
    return page(TITLE, _body(seen, as_of), style=_STYLE)


def _body(seen: Seen, as_of: datetime) -> Iterator[str]:
    yield from heading(_heading(seen, as_of), _sentences(seen))
    drawn = series_of(seen.hours, seen.start, seen.end)
    if drawn:
        yield from _plots(drawn)
        yield from table(_totals(drawn))
    if seen.discrepancies:
        yield from table(_differences(seen))
    if seen.runs:
        yield from table(_runs(seen.runs))


def _heading(seen: Seen, as_of: datetime) -> Iterator[tuple[str, str]]:
    yield "hours", when(seen.start, seen.end)
    yield "as of", f"{as_of.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _sentences(seen: Seen) -> Iterator[str]:
    if not seen.runs and not seen.hours:
        yield _NOTHING
        return
    left = [each for each in seen.discrepancies if each.state == DiscrepancyState.OPEN]
    shown = [each for each in seen.discrepancies if each.state == DiscrepancyState.REPAIRED]
    if not left and not shown:
        yield (
            "Every difference is settled or explained."
            if seen.discrepancies
            else ("The records that were compared tally: no difference was found.")
        )
    for name, some in (("Open", left), ("Repaired, and to be shown by the other side", shown)):
        if some:
            yield f"{name}: {len(some)}."
            yield from (f"No. {each.discrepancy_id}: {each.words}" for each in some)
    for state in dict.fromkeys(run.claude_state for run in seen.runs):
        if state is not None and state != "compared":
            yield f"{CLAUDE_STATES.get(state, state)}."


# --- The plots, and what they come to -------------------------------------------------------------
def _plots(drawn: Sequence[Series]) -> Iterator[str]:
    yield '<h2>The records over time</h2>\n<ul class="key">'
    for side, sample in _KEY.items():
        yield (
            f'<li><svg viewBox="0 0 40 18" aria-hidden="true">{sample}</svg>'
            f"{escape(_KEY_WORDS[side])}</li>"
        )
    yield (
        "</ul>\n<p>Under each, on a scale of its own: Claude's report less the ledger, and what "
        'Stripe counts less what it was sent.</p>\n<div class="plots">'
    )
    for number, series in enumerate(drawn):
        yield f"<figure><figcaption>{escape(series.title)}</figcaption>"
        yield plot(series, f"plot-{number}")
        yield "</figure>"
    yield "</div>"


def _totals(drawn: Sequence[Series]) -> Grid:
    def row(series: Series) -> tuple[Cell, ...]:
        known = [series.total(side) for side in SIDES]
        return (
            series.title,
            *("" if each is None else exact_amount(series.unit, each) for each in known),
        )

    return Grid("In all", ("", *SIDES.values()), tuple(map(row, drawn)))


# --- The differences ------------------------------------------------------------------------------
def _differences(seen: Seen) -> Grid:
    rows = tuple(
        (
            str(each.discrepancy_id),
            when(each.start_at, each.end_at),
            _between(each),
            how_much(each.tokens, each.usd),
            CAUSES[Cause(each.cause)],
            " ".join(_known(each, seen.repairs.get(each.discrepancy_id or 0, ()))),
            each.state,
        )
        for each in seen.discrepancies
    )
    columns = ("no.", "when", "between", "by", "cause", "what is known, and done", "state")
    return Grid("Differences", columns, rows)


def _between(found: Discrepancy) -> str:
    customer = f", for {found.customer_id}" if found.customer_id else ""
    return f"{PAIRS[Pair(found.pair)]}{customer}"


def _known(found: Discrepancy, repairs: Sequence[Repair]) -> Iterator[str]:
    yield found.words
    if repairs:
        yield f"Repairs: {'; '.join(map(repair_in_words, repairs))}."


def repair_in_words(repair: Repair) -> str:
    """Say what was done, and what came of it."""
    what = REPAIRS[RepairKind(repair.repair)]
    outcome = repair.outcome or "begun, its outcome is not known yet"
    beside = f": {repair.words}" if repair.words else ""
    return f"{what} ({outcome}, {repair.by}){beside}"


def _runs(runs: Sequence[Reconciliation]) -> Grid:
    rows = tuple(
        (
            str(run.reconciliation_id),
            run.kind,
            when(run.start_at, run.end_at),
            "under way" if run.finished_at is None else f"{run.finished_at:%Y-%m-%d %H:%M} UTC",
            CLAUDE_STATES.get(run.claude_state or "", ""),
            sum((run.calls or {}).values()),
        )
        for run in runs
    )
    columns = ("run", "kind", "hours", "finished", "Claude's reports", "calls made")
    return Grid("Runs", columns, rows)
