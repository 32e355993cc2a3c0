"""A file of results in pieces of any size, whole or cut at any byte."""

import json
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activities import batch_lines
from activities.batch_lines import chunks_of
from activities.claude_api import ClaudeCallError
from tallystick.errors import BATCH_RESULTS_CUT

LINES = [json.dumps({"custom_id": str(n), "text": "é\\n" * n}).encode() + b"\n" for n in range(12)]
FILE = b"".join(LINES)


async def blocks(data: bytes, size: int, *, reset: bool = False) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]
    if reset:
        raise ClaudeCallError(BATCH_RESULTS_CUT, "the connection was reset")


async def read(
    data: bytes, size: int, *, skip: int = 0, reset: bool = False
) -> tuple[list[tuple[list[bytes], int]], bool]:
    """Return the chunks, and whether the file was found to be cut."""
    chunks: list[tuple[list[bytes], int]] = []
    try:
        async for chunk in chunks_of(blocks(data, size, reset=reset), skip):
            chunks.append(chunk)
    except ClaudeCallError as error:
        return chunks, error.failure is BATCH_RESULTS_CUT
    return chunks, False


@given(
    size=st.integers(1, len(FILE)),
    lines=st.integers(1, 15),
    skipped=st.integers(0, len(LINES)),
    most=st.integers(1, len(FILE)),
)
async def test_every_line_is_given_once_and_with_its_place(
    size: int, lines: int, skipped: int, most: int
) -> None:
    skip = sum(map(len, LINES[:skipped]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batch_lines, "CHUNK_LINES", lines)
        patch.setattr(batch_lines, "CHUNK_BYTES", most)
        chunks, cut = await read(FILE, size, skip=skip)
    assert not cut
    assert [line for chunk, _ in chunks for line in chunk] == LINES[skipped:]
    for chunk, begins in chunks:
        whole = b"".join(chunk)
        assert FILE[begins : begins + len(whole)] == whole
        assert len(chunk) <= lines
        assert len(whole) - len(chunk[-1]) < most


@given(end=st.integers(0, len(FILE)), size=st.integers(1, 64), reset=st.booleans())
async def test_whatever_came_whole_is_given_and_half_a_line_is_a_cut(
    *, end: int, size: int, reset: bool
) -> None:
    chunks, cut = await read(FILE[:end], size, reset=reset)
    given_lines = [line for chunk, _ in chunks for line in chunk]
    whole = FILE[:end].count(b"\n")
    assert given_lines[:whole] == LINES[:whole]
    rest = FILE[:end][sum(map(len, LINES[:whole])) :]
    # A last line that only lacks its end is a line; what a reset has left of one is not looked at.
    last_without_end = bool(rest) and rest + b"\n" in LINES and not reset
    assert given_lines[whole:] == ([rest] if last_without_end else [])
    assert cut == (reset or bool(rest and not last_without_end))


async def test_a_file_that_is_cut_again_and_again_is_read_all_the_same() -> None:
    done, read_lines = 0, []
    while done < len(FILE):
        chunks, _ = await read(FILE[: done + 150], 7, skip=done, reset=True)
        for chunk, begins in chunks:
            assert begins == done
            read_lines += chunk
            done += sum(map(len, chunk))
    assert read_lines == LINES
