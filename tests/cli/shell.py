"""`tallystick` as a person at a terminal has it: a process, its two streams and its exit code.

Whatever is asked, no answer may contain a traceback or the marker that stands in every secret of
these tests; both are looked for in every single run.
"""

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECRET = "hunter2-marker"
PATIENCE = 90
SCRIPT = str(Path(sys.executable).parent / "tallystick")


@dataclass(frozen=True)
class Told:
    """What a command said, and how it ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one value that it printed, which is on one line."""
        (line,) = self.out.splitlines()
        return json.loads(line)

    @property
    def error(self) -> str:
        """The one line that it failed with, and that it did fail."""
        assert self.code != 0
        assert self.out == ""
        (line,) = [line for line in self.err.splitlines() if line.startswith("error: ")]
        assert self.err.splitlines()[-1] == line
        return line.removeprefix("error: ")


class Shell:
    """A terminal with some variables set, and none of the developer's own."""

    def __init__(self, home: Path, **variables: str):
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        self.home = home
        self.environment = {
            **kept, "COLUMNS": "80", "LANG": "C.UTF-8", "TALLYSTICK_HOME": str(home), **variables,
        }  # fmt: skip

    async def __call__(self, *arguments: str, stdin: bytes = b"", **variables: str) -> Told:
        """Run a command that has to succeed."""
        told = await self.attempt(*arguments, stdin=stdin, **variables)
        assert told.code == 0, told
        return told

    async def attempt(self, *arguments: str, stdin: bytes = b"", **variables: str) -> Told:
        """Run a command to its end, whatever that is."""
        process = await self.start(*arguments, **variables)
        return await told_by(process, stdin)

    async def start(
        self, *arguments: str, program: tuple[str, ...] = (SCRIPT,), **variables: str
    ) -> asyncio.subprocess.Process:
        """Start a command."""
        return await asyncio.create_subprocess_exec(
            *program,
            *arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**self.environment, **variables},
            cwd=self.home.parent,
        )


async def told_by(process: asyncio.subprocess.Process, stdin: bytes = b"") -> Told:
    """Wait for the end of a process."""
    try:
        out, err = await asyncio.wait_for(process.communicate(stdin), PATIENCE)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    told = Told(process.returncode, out.decode(), err.decode())
    assert "Traceback" not in told.err, told.err
    assert SECRET not in told.out + told.err
    return told


async def until_said(process: asyncio.subprocess.Process, words: str) -> str:
    """Read the process's standard error until it says `words`; returns all that it said."""
    assert process.stderr is not None
    said = ""
    async with asyncio.timeout(PATIENCE):
        while words not in said:
            line = (await process.stderr.readline()).decode()
            assert line, f"it ended without saying {words!r}: {said}"
            said += line
    return said
