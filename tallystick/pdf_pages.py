"""How many pages the PDFs of a request have: what their price can be told by before it is sent.

A PDF says nothing of its tokens, and a quote by the longest prompt there is would be a hundred
times too high. Its pages are counted by the number that its page tree states, without reading a
page, so a folder of thousands is quoted in seconds. What cannot be counted is unknown, not zero: it
keeps the context window for its bound.
"""

import logging
from base64 import b64decode
from collections.abc import Iterator, Mapping
from io import BytesIO
from typing import Any, cast

from pypdf import PdfReader

logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it has something to say of many files


def pdf_pages(params: Mapping[str, Any]) -> int | None:
    """Return the pages of all PDFs in a Messages API body; None where some cannot be counted."""
    pages = 0
    for source in _sources(params.get("messages")):
        counted = _count(source.get("data"))
        if counted is None:
            return None
        pages += counted
    return pages


def _sources(value: object) -> Iterator[Mapping[str, Any]]:
    """Yield the sources of the documents that are in the body itself, wherever they are."""
    if isinstance(value, list):
        for each in cast("list[object]", value):
            yield from _sources(each)
    elif isinstance(value, Mapping):
        block = cast("Mapping[str, Any]", value)
        source = block.get("source")
        if block.get("type") == "document" and isinstance(source, Mapping):
            held = cast("Mapping[str, Any]", source)
            if held.get("type") == "base64":
                yield held
        else:
            yield from _sources(block.get("content"))


def _count(data: object) -> int | None:
    if not isinstance(data, str):
        return None
    try:
        return len(PdfReader(BytesIO(b64decode(data))).pages)
    except Exception:  # a broken file makes the reader raise just about anything
        return None
