"""The table of contents, and that a command loads what it needs and no more."""

import subprocess
import sys

import pytest

from tallystick.cli.contents import CONTENTS, load
from tests.cli.shell import Shell

HEAVY = {"anthropic", "stripe", "temporalio", "sqlalchemy", "fastapi", "alembic"}
_SHOW_LOADED = """
import sys
from tallystick.cli.app import app
sys.argv = ["tallystick", *sys.argv[1:]]
try:
    app()
except SystemExit:
    pass
print("LOADED", *{name.split(".")[0] for name in sys.modules})
"""


@pytest.mark.parametrize("name", CONTENTS)
def test_an_entry_says_what_the_command_itself_says(name: str) -> None:
    _, summary = CONTENTS[name]
    assert load(name).help.startswith(summary.rstrip("."))


@pytest.mark.parametrize("arguments", [["--help"], ["prices", "show"], ["rate", "--help"]])
def test_nothing_heavy_is_loaded_for_what_needs_none_of_it(arguments: list[str]) -> None:
    shown = subprocess.run(
        [sys.executable, "-c", _SHOW_LOADED, *arguments], capture_output=True, text=True, check=True
    )
    loaded = set(shown.stdout.rpartition("LOADED")[2].split())
    assert "tallystick" in loaded
    assert loaded & HEAVY == set()


async def test_the_help_lists_every_command_and_fits_80_columns(shell: Shell) -> None:
    told = await shell("--help")
    assert set(CONTENTS) <= set(told.out.split())
    assert max(map(len, told.out.splitlines())) <= 80


async def test_the_version_is_told(shell: Shell) -> None:
    assert (await shell("--version")).out.count(".") == 2
