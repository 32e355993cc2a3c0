"""Documents as requests: what is asked about each kind, and what cannot be asked."""

import json
from base64 import standard_b64decode
from pathlib import Path

import pytest

from tallystick.documents import LARGEST, Asked, DocumentError, Folder, Prompt, Requests

BODY = {"model": "claude-haiku-4-5", "max_tokens": 64}


def content_of(asked: Asked | DocumentError) -> object:
    assert isinstance(asked, Asked)
    assert {name: asked.params[name] for name in BODY} == BODY
    (turn,) = asked.params["messages"]
    assert turn["role"] == "user"
    return turn["content"]


def test_a_text_is_put_into_its_prompt_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("\ufeffOak {name} {owed}.")
    (told,) = Folder(tmp_path, Prompt.instruction("Sum it up."), BODY)
    assert content_of(told) == (
        '<document name="a.md">\nOak {name} {owed}.\n</document>\n\nSum it up.'
    )
    (told,) = Folder(tmp_path, Prompt.template("In {name}: {document} {x}, {document}"), BODY)
    assert content_of(told) == "In a.md: Oak {name} {owed}. {x}, Oak {name} {owed}."


@pytest.mark.parametrize(
    ("name", "kind", "media_type"),
    [
        ("a.PDF", "document", "application/pdf"),
        ("a.png", "image", "image/png"),
        ("a.jpg", "image", "image/jpeg"),
        ("a.webp", "image", "image/webp"),
        ("a.gif", "image", "image/gif"),
    ],
)
def test_what_is_no_text_stands_between_the_texts_around_it(
    tmp_path: Path, name: str, kind: str, media_type: str
) -> None:
    (tmp_path / name).write_bytes(b"\x00\xff")
    (told,) = Folder(tmp_path, Prompt.template("About {name}:\n{document}\nSum it up."), BODY)
    before, block, after = content_of(told)  # type: ignore[misc]
    assert before == {"type": "text", "text": f"About {name}:"}
    assert (block["type"], block["source"]["media_type"]) == (kind, media_type)
    assert standard_b64decode(block["source"]["data"]) == b"\x00\xff"
    assert after == {"type": "text", "text": "Sum it up."}


def test_a_folder_is_read_in_one_order_and_what_cannot_be_sent_is_named_in_its_place(
    tmp_path: Path,
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "again").symlink_to(tmp_path)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "c.md").write_text("hidden")
    (tmp_path / "b" / "2.md").write_text("two")
    (tmp_path / "a.txt").write_bytes(b"caf\xe9")
    (tmp_path / "c.txt").write_text("\n ")
    (tmp_path / "d.pdf").write_bytes(b"")
    (tmp_path / "e.docx").write_bytes(b"PK")
    with (tmp_path / "f.png").open("wb") as large:
        large.truncate(LARGEST + 1)
    folder = Folder(tmp_path, Prompt.instruction("Sum it up."), BODY)
    for _ in range(2):
        assert [
            each.document if isinstance(each, Asked) else str(each).split(";")[0] for each in folder
        ] == [
            "a.txt: not UTF-8 text (byte 3)",
            "b/2.md",
            "c.txt: empty",
            "d.pdf: empty",
            "f.png: 23,000,001 bytes",
        ]
        assert folder.passed_over == {".docx": 1}


def test_a_template_needs_a_place_for_the_document() -> None:
    with pytest.raises(ValueError, match=r"has no \{document\}"):
        Prompt.template("Sum up {name}.")


def test_lines_are_requests_or_errors_that_name_the_line(tmp_path: Path) -> None:
    path = tmp_path / "asks.jsonl"
    lines = [
        json.dumps({"request_id": "r-1", "params": {"max_tokens": 5, "messages": []}}),
        "",
        json.dumps({"params": {"model": "claude-opus-5"}}),
        '{"params": {',
        "[]",
        json.dumps({"params": []}),
        json.dumps({"params": {}, "custom_id": "x"}),
        json.dumps({"params": {}, "request_id": 7}),
    ]
    path.write_text("\n".join(lines))
    first, second, *errors = Requests(path, BODY, {"max_tokens": 9})
    assert first == Asked({**BODY, "max_tokens": 9, "messages": []}, None, "r-1")
    assert second == Asked({"model": "claude-opus-5", "max_tokens": 9}, "line 3", None)
    assert [str(error).split(":")[0] for error in errors] == [f"line {n}" for n in (4, 5, 6, 7, 8)]
    assert all(isinstance(error, DocumentError) for error in errors)
