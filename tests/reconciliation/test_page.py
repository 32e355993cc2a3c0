"""The page of plots and differences: drawn to scale, told in words, and safe to open."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

from tallystick.ledger.reconciliation_tables import Discrepancy, Reconciliation, Repair, TallyHour
from tallystick.tally_report.page import Seen, as_html
from tallystick.tally_report.plot import described, plot
from tallystick.tally_report.series import DAY, HOUR, Series, series_of

START = datetime(2026, 3, 9, tzinfo=UTC)
SVG = "{http://www.w3.org/2000/svg}"
NASTY = "<script>alert('x')</script> & \"co\""


def _hour(hour: int, unit: str = "input", **sides: int | None) -> TallyHour:
    equal = dict.fromkeys(("claude", "ledger", "outbox", "stripe"), 1_000)
    return TallyHour(hour=START + hour * HOUR, unit=unit, **{**equal, **sides})


def _series(*hours: TallyHour, span: timedelta = 6 * HOUR) -> Series:
    (series,) = series_of(hours, START, START + span)
    return series


def _drawn(series: Series) -> ElementTree.Element:
    return ElementTree.fromstring(plot(series, "p"))


def _bars(drawing: ElementTree.Element) -> list[tuple[str, float, float]]:
    """Return side, upper edge and height of each bar."""
    return [
        (bar.attrib["class"], float(bar.attrib["y"]), float(bar.attrib["height"]))
        for bar in drawing.iter(f"{SVG}rect")
    ]


def test_a_difference_is_drawn_on_its_side_of_the_line_and_to_its_own_scale() -> None:
    drawing = _drawn(_series(_hour(1, claude=1_100), _hour(2, stripe=980), _hour(3, claude=950)))
    claude_more, claude_less, stripe_less = _bars(drawing)
    assert [bar[0] for bar in _bars(drawing)] == ["less-claude", "less-claude", "less-stripe"]
    above, below = claude_more[1] + claude_more[2], claude_less[1]
    assert above == below == stripe_less[1]
    assert claude_more[2] == 2 * claude_less[2] == 5 * stripe_less[2]


def test_records_that_tally_leave_no_bar_and_say_so() -> None:
    series = _series(_hour(0), _hour(4))
    assert _bars(_drawn(series)) == []
    assert "no difference" in [text.text for text in _drawn(series).iter(f"{SVG}text")]
    assert described(series) == (
        "In all: Claude reports 2,000, ledger 2,000, sent to Stripe 2,000, Stripe counts 2,000. "
        "Claude reports and ledger are equal throughout. "
        "Stripe counts and sent to Stripe are equal throughout."
    )


def test_an_hour_that_one_side_does_not_know_makes_no_difference() -> None:
    series = _series(_hour(0, claude=None), _hour(1, claude=1_007))
    assert series.differences["claude"][:3] == [None, 7, None]
    assert "Claude reports and ledger differ in 1 place, by 7 at the most." in described(series)
    assert "were not compared" in described(_series(_hour(0, claude=None)))


def test_a_longer_span_is_drawn_by_the_day_and_opposite_hours_do_not_hide_a_day() -> None:
    series = _series(_hour(1, claude=1_010), _hour(30), _hour(31, stripe=990), span=9 * DAY)
    assert (series.step, len(series.sides["ledger"])) == (DAY, 9)
    assert series.sides["ledger"][:3] == [1_000, 2_000, None]
    assert series.differences["claude"][:2] == [10, 0]
    assert series.differences["stripe"][:2] == [0, -10]


def test_each_plot_has_a_title_and_a_description_of_its_own() -> None:
    hours = [_hour(1), _hour(1, "output"), _hour(1, "charge_nano_usd", claude=None)]
    found = _Parts.of(as_html(_seen(hours=hours), START))
    plots = [each for each in found.tags if each[0] == "svg" and each[1].get("role") == "img"]
    assert len(plots) == 3
    for _, attributes in plots:
        assert set((attributes["aria-labelledby"] or "").split()) <= found.ids
    assert "In all: ledger $0.000001" in found.text


def test_what_others_have_written_is_only_ever_text() -> None:
    found = _difference(customer_id=NASTY, words=NASTY, usd=Decimal("1.5"))
    repair = Repair(
        discrepancy_id=1, repair="resend", subject="s", by="operator", begun_at=START,
        outcome="refused", words=NASTY,
    )  # fmt: skip
    page = as_html(_seen([_hour(1)], discrepancies=[found], repairs={1: [repair]}), START)
    parts = _Parts.of(page)
    assert not {"script", "img", "link", "iframe"} & {tag for tag, _ in parts.tags}
    assert parts.text.count(NASTY) == 4  # among what is open, whose it is, what is known, done
    assert "default-src 'none'" in page
    assert "$1.50, about 2 pages of text (400 tokens)" in parts.text


def test_the_page_says_how_it_stands_and_when_nobody_has_looked() -> None:
    assert "Nothing has been compared" in as_html(_seen([]), START)
    run = Reconciliation(
        reconciliation_id=1, run="r", kind="daily", start_at=START, end_at=START + DAY,
        begun_at=START, finished_at=START, claude_state="no_admin_key",
    )  # fmt: skip
    page = as_html(_seen([_hour(1)], runs=[run]), START)
    assert "no difference was found" in page
    assert "ANTHROPIC_ADMIN_KEY is not set" in page
    settled = as_html(_seen([], runs=[run], discrepancies=[_difference(state="settled")]), START)
    assert "Every difference is settled or explained." in settled


def _seen(hours: list[TallyHour], **changes: Any) -> Seen:
    nothing: dict[str, Any] = {"runs": [], "discrepancies": [], "repairs": {}}
    return Seen(start=START, end=START + DAY, hours=hours, **{**nothing, **changes})


def _difference(**changes: Any) -> Discrepancy:
    values: dict[str, Any] = {
        "discrepancy_id": 1, "key": "k", "pair": "outbox-stripe", "kind": "not_counted",
        "start_at": START, "end_at": START + HOUR, "customer_id": "acme", "place": {},
        "amounts": {}, "tokens": 400, "cause": "lost_event", "words": "It is lost.",
        "requests": [], "state": "open", "found_at": START, "found_by": 1, "changed_at": START,
    }  # fmt: skip
    return Discrepancy(**{**values, **changes})


class _Parts(HTMLParser):
    """The tags, ids and text of a page, as a browser reads them."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: set[str] = set()
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.ids.update(value for name, value in attrs if name == "id" and value)

    def handle_data(self, data: str) -> None:
        self.text += data

    @classmethod
    def of(cls, page: str) -> "_Parts":
        parts = cls()
        parts.feed(page)
        return parts
