"""From files to the requests of a batch: a folder of documents under one prompt, or ready requests.

Everything is read one file, or one line, at a time and in the same order each time: memory does not
grow with the number of documents, and reading twice gives the same requests, so the same command
given twice is the same job. What cannot be sent is yielded in its place as an error that names it:
one empty file among 10,000 is told together with all others like it, not one a run.
"""

import json
import os
import re
from base64 import standard_b64encode
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

TEXTS = frozenset({".txt", ".md"})
IMAGES: Mapping[str, str] = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
}
PDF = ".pdf"
KINDS = (*sorted(TEXTS), PDF, *IMAGES)
LARGEST = 23_000_000
"""Bytes of a document: in base64 it is a third larger, and Claude takes requests of up to 32 MB."""

_DOCUMENT, _NAME = "{document}", "{name}"


class DocumentError(ValueError):
    """A document or a line cannot be sent; the message names it and says why."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One request: the Messages API body, its document's name, and its id where it has its own."""

    params: dict[str, Any]
    document: str | None = None
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is asked about each document: text with places for the document and its name."""

    parts: tuple[str, ...]

    @classmethod
    def instruction(cls, text: str) -> "Prompt":
        """Return the prompt that shows the document and then says what to do with it."""
        return cls(
            ('<document name="', _NAME, '">\n', _DOCUMENT, f"\n</document>\n\n{text.strip()}")
        )

    @classmethod
    def template(cls, text: str) -> "Prompt":
        """Return the prompt that a text with `{document}`, and maybe `{name}`, describes.

        Other braces are text.

        Raises:
            ValueError: it has no place for the document.
        """
        parts = tuple(re.split(r"(\{document\}|\{name\})", text.strip()))
        if _DOCUMENT not in parts:
            raise ValueError(f"has no {_DOCUMENT} in it, which is where each document goes")
        return cls(parts)

    def about(self, name: str, document: str | dict[str, Any]) -> str | list[dict[str, Any]]:
        """Return the content of a user's turn: one text, or blocks around one that is no text."""
        filled = [name if part == _NAME else part for part in self.parts]
        if isinstance(document, str):
            return "".join(document if part == _DOCUMENT else part for part in filled)
        blocks: list[dict[str, Any]] = []
        text = ""
        for part in [*filled, None]:
            if part in (_DOCUMENT, None):
                if text.strip():
                    blocks.append({"type": "text", "text": text.strip()})
                text = ""
            else:
                text += part
            if part == _DOCUMENT:
                blocks.append(document)
        return blocks


@dataclass(slots=True)
class Folder:
    """The documents of a folder and those below it, sorted by name; hidden files are none.

    `passed_over` counts what is not of a kind that Claude reads, by its ending, while it is read.
    """

    path: Path
    prompt: Prompt
    body: Mapping[str, Any]
    """The rest of the Messages API body: `model`, `max_tokens` and so on."""
    passed_over: Counter[str] = field(default_factory=Counter[str])

    def __iter__(self) -> Iterator[Asked | DocumentError]:
        """Read each document as a request, or as the error that it is."""
        self.passed_over.clear()
        for path in _files(self.path):
            if path.suffix.lower() not in KINDS:
                self.passed_over[path.suffix.lower() or path.name] += 1
                continue
            name = path.relative_to(self.path).as_posix()
            try:
                content = self.prompt.about(name, read_document(path, name))
            except DocumentError as error:
                yield error
            else:
                messages = [{"role": "user", "content": content}]
                yield Asked({**self.body, "messages": messages}, document=name)


def read_document(path: Path, name: str) -> str | dict[str, Any]:
    """Return a text as it is, and a PDF or an image as a content block in base64.

    Raises:
        DocumentError: it cannot be read, is empty, too large, or a text that is no UTF-8.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DocumentError(f"{name!r}: a name that is not UTF-8; rename it") from None
    try:
        size = path.stat().st_size
        data = path.read_bytes() if size <= LARGEST else b""
    except OSError as error:
        raise DocumentError(f"{name}: cannot be read: {error.strerror}") from None
    if size > LARGEST:
        raise DocumentError(f"{name}: {size:,} bytes; {LARGEST:,} is the most, split it")
    ending = path.suffix.lower()
    if ending not in TEXTS:
        if not data:
            raise DocumentError(f"{name}: empty")
        return _block(ending, data)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise DocumentError(f"{name}: not UTF-8 text (byte {error.start})") from None
    if not text.strip():
        raise DocumentError(f"{name}: empty")
    return text


@dataclass(frozen=True, slots=True)
class Requests:
    """The requests of a JSONL file: `{"request_id"?, "params": {Messages API body}}` a line.

    `defaults` holds what a body may leave out, `overriding` what every body gets.
    """

    path: Path
    defaults: Mapping[str, Any]
    overriding: Mapping[str, Any]

    def __iter__(self) -> Iterator[Asked | DocumentError]:
        """Read each line as a request, or as the error that it is; empty lines are none."""
        with self.path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    try:
                        yield self._read(line, f"line {number}")
                    except DocumentError as error:
                        yield error

    def _read(self, line: bytes, name: str) -> Asked:
        try:
            read: object = json.loads(line)
        except ValueError as error:
            raise DocumentError(f"{name}: not JSON: {error}") from None
        if not isinstance(read, dict):
            raise DocumentError(f"{name}: should be an object with params")
        found = cast("dict[str, Any]", read)
        unknown = found.keys() - {"request_id", "params"}
        if unknown:
            raise DocumentError(f"{name}: {min(unknown)}: only request_id and params are known")
        params, request_id = found.get("params"), found.get("request_id")
        if not isinstance(params, dict):
            raise DocumentError(f"{name}: params: should be an object, a Messages API body")
        if request_id is not None and not isinstance(request_id, str):
            raise DocumentError(f"{name}: request_id: should be text")
        return Asked(
            {**self.defaults, **cast("dict[str, Any]", params), **self.overriding},
            document=name if request_id is None else None,
            request_id=request_id,
        )


def _files(folder: Path) -> Iterator[Path]:
    """Yield the files below a folder in order, holding one folder's names at a time.

    Links to folders are not followed: one of them could lead back.
    """
    for name in sorted(os.listdir(folder)):
        path = folder / name
        if name.startswith("."):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(path)
        elif path.is_file():
            yield path


def _block(ending: str, data: bytes) -> dict[str, Any]:
    pdf = ending == PDF
    return {
        "type": "document" if pdf else "image",
        "source": {
            "type": "base64",
            "media_type": "application/pdf" if pdf else IMAGES[ending],
            "data": standard_b64encode(data).decode(),
        },
    }
