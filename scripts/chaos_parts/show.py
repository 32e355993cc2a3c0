"""What a person sees of a drill: how it gets on, and the table at its end."""

import asyncio
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tallystick.money import from_nano_usd

from .comparison import AT, NANO_USD, Totals
from .memory import ALLOWANCE, JUDGED_FROM, Memory
from .outcome import Outcome
from .verdict import PROMISES, Verdict

err = Console(stderr=True, highlight=False, soft_wrap=True)
out = Console(highlight=False, soft_wrap=True)

AT_MOST = 25
"""Lines about what is wrong."""
LINE_EVERY = 30.0
"""Seconds between two lines where nobody watches a bar."""

ROWS: Sequence[tuple[str, str]] = (
    ("requests asked", "asked"),
    ("  refused, with a reason", "refused"),
    ("  answered", "answered"),
    ("    billed once, and whole", "billed_once"),
    ("    free, as Claude does not charge it", "free"),
    ("    parked, as nobody knows its price", "unpriced"),
    ("  lost: answered to nobody, or not billed", "lost"),
    ("  half billed: events missing or left over", "half_billed"),
    ("  billed twice", "billed_twice"),
    ("  metered twice", "metered_twice"),
    ("  still under way", "pending"),
    ("other differences between the records", "wrong"),
    ("calls that Claude served", "calls"),
    ("  beyond one for a request, at our cost", "paid_again"),
    ("    of these, in no record of ours", "unaccounted"),
    ("events that Stripe took, then misplaced", "misplaced"),
)
RECORDED = ("free", "unpriced", "pending", "wrong")
"""Counts that need records of one's own, which the baseline does not have."""
NOTES = (
    "Beyond one: a call whose answer was lost on its way is made again, and Claude charges both.",
    "Misplaced: the stand-in was told to acknowledge these events and then to lose them, to count",
    "them twice or for somebody else. No sender can know, and reconciliation finds them; all other",
    "rows take them as acknowledged.",
)
BASELINE = (
    "Baseline: the usual pattern, a call of Claude and then two meter events. It keeps no record,",
    "so nobody would know of what its column shows. It gives up where Tallystick calls again, so",
    "it has fewer calls to pay for, and fewer answers.",
)


class View:
    """A bar of the load's time, and what is going on."""

    def __init__(self, progress: Progress, seconds: float):
        self._progress = progress
        self._bar = progress.add_task("load", total=seconds, said="")
        self._clock = asyncio.get_running_loop().time
        self._next_line = 0.0

    def show(self, elapsed: float, said: str) -> None:
        """Draw the present state; a line now and then where there is no terminal."""
        self._progress.update(self._bar, completed=elapsed, said=said)
        if not err.is_terminal and self._clock() >= self._next_line:
            self._next_line = self._clock() + LINE_EVERY
            err.print(f"{elapsed:6.0f} s  {said}", markup=False)


@contextmanager
def view(seconds: float) -> Generator[View, None, None]:
    """Draw on standard error while the context is open."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.fields[said]}"),
        console=err,
        transient=True,
    ) as progress:
        yield View(progress, seconds)


def print_totals(totals: Totals) -> None:
    """Print what the three records come to."""
    table = Table(header_style="bold", box=None, padding=(0, 3, 0, 0))
    table.add_column("in total", no_wrap=True)
    for heading in ("Claude served", "ledger charged", "Stripe acknowledged"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, sums in totals.items():
        title, write = ("USD", _usd) if name == NANO_USD else (name, _whole)
        known = [write(sums[side]) if side in sums else "" for side in AT]
        table.add_row(title, *known, "=" if len(set(sums.values())) == 1 else "[red]differs[/]")
    out.print(table)
    out.print()


def _whole(value: int) -> str:
    return f"{value:,}"


def _usd(nano: int) -> str:
    return f"{from_nano_usd(nano):,.9f}"


def print_verdicts(product: Verdict, naive: Verdict | None) -> None:
    """Print both sides, one beside the other, and what their rows mean."""
    table = Table(header_style="bold", box=None, padding=(0, 3, 0, 0))
    table.add_column("", no_wrap=True)
    table.add_column("Tallystick", justify="right", no_wrap=True)
    if naive:
        table.add_column("baseline", justify="right", no_wrap=True)
    for title, name in ROWS:
        cells = [_cell(name, product)]
        if naive:
            cells.append("-" if name in RECORDED else _cell(name, naive))
        table.add_row(title, *cells)
    out.print(table)
    for line in (*NOTES, *(BASELINE if naive else ())):
        out.print(line, style="dim")
    out.print()


def _cell(name: str, verdict: Verdict) -> str:
    value: int | Mapping[str, int] = getattr(verdict, name)
    count = value if isinstance(value, int) else sum(value.values())
    return f"[red]{_whole(count)}[/]" if name in PROMISES and count else _whole(count)


def print_circumstances(outcome: Outcome) -> None:
    """Print what was survived, why requests were refused, and what a worker held in memory."""
    fell = f"; {outcome.fell} workers ended for want of a server" if outcome.fell else ""
    out.print(f"killed: {_times(outcome.deaths)}{fell}")
    for service, struck in outcome.applied.items():
        out.print(f"{service.capitalize()} failed: {_times(struck) or 'never'}")
        if idle := [name for name, times in struck.items() if not times]:
            out.print(f"  armed, and never struck: {', '.join(idle)}")
    out.print(f"refused: {_times(outcome.product.refused) or 'none'}")
    out.print(f"settled {outcome.settled:g} seconds after the load")
    if outcome.memory is not None:
        print_memory(outcome.memory)


def print_memory(memory: Memory) -> None:
    """Print what the spared worker held over time, and whether that is flat."""
    course = ", ".join(f"{each:.0f}" for each in memory.course)
    quarters = ", ".join(f"{each:.0f}" for each in memory.quarters)
    judged = {
        True: "flat",
        False: f"[red]not flat: over {ALLOWANCE:.0%}[/]",
        None: f"not judged before {JUDGED_FROM / 60:g} minutes, since a worker first fills caches",
    }[memory.flat]
    out.print(f"memory of the worker that was spared, in MB: {course}")
    out.print(f"  by quarters {quarters}; the last is {memory.growth:+.1%} to the second: {judged}")


def print_judgement(verdict: Verdict, repeat: str) -> None:
    """Print whether all promises were kept, what was not, and how to have it again."""
    for each in verdict.told[:AT_MOST]:
        out.print(f"wrong: {each}", style="red", markup=False)
    if more := verdict.told[AT_MOST:]:
        out.print(f"wrong: {len(more)} more like these; --json has all", style="red")
    if verdict.holds:
        out.print(
            "Nothing lost, nothing billed twice or by half: the promises hold.", style="green"
        )
    out.print(f"again: {repeat}", markup=False)


def _times(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} ×{times}" for name, times in counts.items() if times)
