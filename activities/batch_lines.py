"""A file of results, cut into chunks of whole lines, each with its place in the file.

Nothing in the file says where it ends. A connection that was cut, and a last line that is half a
line, show; a file that ends behind a line looks whole, and only the provider's counts tell. So what
arrived whole is given away in any case, and reading goes on behind it the next time: a file that is
cut again and again still gets read.
"""

from collections.abc import AsyncGenerator, AsyncIterable

from pydantic_core import from_json

from activities.claude_api import ClaudeCallError
from tallystick.errors import BATCH_RESULTS_CUT

CHUNK_LINES = 2_000
CHUNK_BYTES = 4_000_000
"""A chunk ends with whatever comes first: lines are one transaction, bytes are held in memory."""


async def chunks_of(
    blocks: AsyncIterable[bytes], skip: int
) -> AsyncGenerator[tuple[list[bytes], int], None]:
    """Yield lists of whole lines, each with the byte that it begins at.

    Args:
        blocks: the file, from its first byte, in pieces of any size.
        skip: bytes that are done; lines end there.

    Raises:
        ClaudeCallError: when the file was cut, after all that came whole.
    """
    reader = _Reader(skip)
    cut: ClaudeCallError | None = None
    try:
        async for block in blocks:
            reader.take(block)
            while reader.is_full:
                yield reader.chunk()
    except ClaudeCallError as error:
        cut = error
    if cut is None and not reader.finish():
        cut = ClaudeCallError(BATCH_RESULTS_CUT, "the results end inside a line")
    while reader.lines:
        yield reader.chunk()
    if cut is not None:
        raise cut


class _Reader:
    """Bytes on one side, whole lines on the other."""

    def __init__(self, skip: int):
        self.lines: list[bytes] = []
        self._skip = self._at = skip
        self._size = 0
        self._rest = b""

    @property
    def is_full(self) -> bool:
        return len(self.lines) >= CHUNK_LINES or self._size >= CHUNK_BYTES

    def take(self, block: bytes) -> None:
        if self._skip:
            skipped = min(self._skip, len(block))
            self._skip -= skipped
            block = block[skipped:]
        *whole, self._rest = (self._rest + block).split(b"\n")
        for line in whole:
            self._add(line + b"\n")

    def finish(self) -> bool:
        """Take a last line without an end; False where it is only half a line."""
        rest, self._rest = self._rest, b""
        if rest.strip():
            try:
                from_json(rest)
            except ValueError:
                return False
            self._add(rest)
        return True

    def chunk(self) -> tuple[list[bytes], int]:
        """Return the next chunk, and where in the file it begins."""
        size = count = 0
        for line in self.lines[:CHUNK_LINES]:
            size += len(line)
            count += 1
            if size >= CHUNK_BYTES:
                break
        lines, self.lines = self.lines[:count], self.lines[count:]
        begins, self._at = self._at, self._at + size
        self._size -= size
        return lines, begins

    def _add(self, line: bytes) -> None:
        self.lines.append(line)
        self._size += len(line)
