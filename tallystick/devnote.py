"""The note by which commands on one machine find a running `tallystick dev`.

It lies in the home folder and names the process that left it, by its id and the moment it began: a
note of a process that is gone counts for nothing, even when its id has been given to another, so a
crash leaves no false address behind.
"""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

NOTE = "dev.json"


@dataclass(frozen=True, slots=True)
class DevNote:
    """What a running `tallystick dev` tells other commands on the machine."""

    pid: int
    began: float
    temporal_address: str
    claude_url: str | None
    stripe_url: str | None

    def write(self, home: Path) -> None:
        """Leave the note; readers see the old one or the whole new one."""
        draft = home / f"{NOTE}.{os.getpid()}"
        draft.write_text(json.dumps(asdict(self)))
        draft.replace(home / NOTE)

    @staticmethod
    def read(home: Path) -> "DevNote | None":
        """Return the note of a `tallystick dev` that is still running."""
        try:
            note = DevNote(**json.loads((home / NOTE).read_text()))
        except (FileNotFoundError, ValueError, TypeError):
            return None
        return note if began(note.pid) == note.began else None


def began(pid: int) -> float | None:
    """Return when a process began, in seconds of the epoch, or None if there is none."""
    try:
        return psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return None
