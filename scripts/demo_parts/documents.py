"""The texts that the demo asks about: real ones, on every machine, without a download.

Python's standard library ships the reference manual's topics for `help()`. `--documents` takes a
folder of text and Markdown files instead.
"""

from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

from tallystick.errors import TallystickError

LONGEST = 20_000
"""Characters taken of one document: about 5,000 tokens, so that a run stays cheap."""


@dataclass(frozen=True, slots=True)
class Document:
    """A name for people, and the text."""

    name: str
    text: str


def read_documents(folder: Path | None) -> list[Document]:
    """Return the documents of `folder`, or the manual's topics, each cut to `LONGEST`.

    Raises:
        TallystickError: the folder has no text in it.
    """
    if folder is None:
        return [Document(name, text[:LONGEST]) for name, text in sorted(topics.items())]
    files = sorted(
        path for path in folder.rglob("*") if path.suffix in {".md", ".txt"} and path.is_file()
    )
    documents = [
        Document(path.name, text[:LONGEST])
        for path in files
        if (text := path.read_text(errors="replace")).strip()
    ]
    if not documents:
        raise TallystickError(f"--documents: no .txt or .md file with text in {str(folder)!r}")
    return documents
