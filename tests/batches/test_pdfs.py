"""PDFs are quoted by their pages, and by the longest prompt there is where those are unknown."""

from base64 import b64encode
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pypdf import PdfWriter

from tallystick.documents import Folder, Prompt
from tallystick.pdf_pages import pdf_pages
from tallystick.plans.batching import NewItem, new_item
from tallystick.pricing.estimate import (
    CONTEXT_WINDOW,
    PDF_PAGE_TOKENS_AT_MOST,
    PDF_PAGE_TOKENS_LIKELY,
    estimate_cost,
)
from tallystick.submission import measure
from tests.batches.stand import LIMITS

NOW = datetime(2026, 11, 20, 12, tzinfo=UTC)
MODEL = "claude-haiku-4-5"
BODY = {"model": MODEL, "max_tokens": 64}
TEXT = 200
"""More tokens than the prompt beside the PDF has."""


def pdf(pages: int) -> bytes:
    writer = PdfWriter()
    for _ in range(pages):
        writer.add_blank_page(595, 842)
    written = BytesIO()
    writer.write(written)
    return written.getvalue()


def document(data: bytes) -> dict[str, Any]:
    source = {
        "type": "base64",
        "media_type": "application/pdf",
        "data": b64encode(data).decode(),
    }
    return {"type": "document", "source": source}


def asking(*blocks: dict[str, Any]) -> dict[str, Any]:
    turn = {"role": "user", "content": [*blocks, {"type": "text", "text": "Sum it up."}]}
    return {**BODY, "messages": [turn]}


def item(params: dict[str, Any]) -> NewItem:
    return new_item(params, request_id="job/0", limits=LIMITS, at=NOW, pdf_pages=pdf_pages(params))


def test_the_pages_of_all_pdfs_in_a_request_are_counted() -> None:
    two, three = document(pdf(2)), document(pdf(3))
    found = {"type": "tool_result", "tool_use_id": "t", "content": [three]}
    assert pdf_pages(asking()) == 0
    assert pdf_pages(asking(two, three)) == 5
    assert pdf_pages(asking(two, found)) == 5


@pytest.mark.parametrize("data", [b"%PDF-1.7 and no more", b"", pdf(1)[:200]])
def test_a_pdf_that_cannot_be_read_has_no_bound_but_the_context_window(data: bytes) -> None:
    params = asking(document(pdf(2)), document(data))
    assert pdf_pages(params) is None
    longest = estimate_cost(MODEL, CONTEXT_WINDOW, 64, NOW, batch=True)
    assert item(params).highest_cost_usd == longest


def test_a_pdf_costs_by_its_pages_and_no_more_than_the_longest_prompt() -> None:
    made = item(asking(document(pdf(40))))
    likely, highest = 40 * PDF_PAGE_TOKENS_LIKELY, 40 * PDF_PAGE_TOKENS_AT_MOST
    assert likely < made.estimated_input_tokens < likely + TEXT
    assert made.highest_cost_usd > estimate_cost(MODEL, highest, 64, NOW, batch=True)
    assert made.highest_cost_usd < estimate_cost(MODEL, highest + TEXT, 64, NOW, batch=True)
    longest = estimate_cost(MODEL, CONTEXT_WINDOW, 64, NOW, batch=True)
    assert item(asking(document(pdf(300)))).highest_cost_usd == longest


def test_a_folder_of_pdfs_tells_how_many_pages_it_has_and_how_many_are_unknown(
    tmp_path: Path,
) -> None:
    for number in range(1, 4):
        (tmp_path / f"{number}.pdf").write_bytes(pdf(number))
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7")
    (tmp_path / "notes.txt").write_text("Oak was owed.")
    source = Folder(tmp_path, Prompt.instruction("Sum it up."), BODY)
    measured = measure("acme", source, LIMITS, NOW)
    assert (measured.requests, measured.pdf_pages, measured.pdfs_uncounted) == (5, 6, 1)
    twice = Folder(tmp_path, Prompt.template("{document} {document} Sum it up."), BODY)
    assert measure("acme", twice, LIMITS, NOW).pdf_pages == 12
