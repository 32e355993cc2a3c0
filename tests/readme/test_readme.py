"""README.md says what is so: its settings, its commands and its example are held to the code."""

import asyncio
import os
import re
import sys
from pathlib import Path, PurePath

from temporalio.client import Client

from tallystick import errors
from tallystick.cli.contents import CONTENTS, load
from tallystick.embedded import TemporalServer
from tallystick.settings import Settings
from tests.support.house import open_house

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
EXAMPLE = ROOT / "examples" / "ask.py"


def section(title: str) -> str:
    """Return the text below a heading."""
    return re.split(r"^## ", README.split(f"## {title}\n")[1], maxsplit=1, flags=re.MULTILINE)[0]


def first_cells(text: str) -> list[list[str]]:
    """Return the rows of the section's tables, without headings."""
    rows = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("| ")
    ]
    rules = [number for number, row in enumerate(rows) if set(row[0]) == {"-"}]
    return [
        row for number, row in enumerate(rows) if number not in rules and number + 1 not in rules
    ]


def shown(default: object) -> str:
    """Write a default as the README does."""
    if default is None or default == ():
        return "unset"
    if isinstance(default, bool):
        return str(default).lower()
    if isinstance(default, str | PurePath):
        return str(default)
    return f"{default:,}".removesuffix(".0")


def test_the_settings_table_has_every_setting_with_its_default():
    settings = {
        (
            field.validation_alias.choices[0]
            if field.validation_alias
            else f"TALLYSTICK_{name}".upper()
        ): (shown(field.default))
        for name, field in Settings.model_fields.items()
    }
    table = {name.strip("`"): default for name, default, _ in first_cells(section("Settings"))}
    assert table == settings


def test_the_command_table_names_every_command_and_no_other():
    named: set[str] = set()
    for cell, _ in first_cells(section("Command line")):
        for text in re.findall(r"`([^`]+)`", cell):
            words = text.replace(r"\|", "|").removeprefix("tallystick ").split()
            command = load(words[0])
            named.add(words[0])
            within = getattr(command, "commands", None)
            if within and words[1:]:  # a group may be a command by itself
                assert set(words[1].split("|")) <= within.keys(), text
            for option in re.findall(r"--[a-z-]+", text):
                assert any(option in parameter.opts for parameter in command.params), text
    assert named == CONTENTS.keys()


def test_the_errors_it_names_exist():
    for name in re.findall(r"`(\w+Error)`", README):
        assert issubclass(getattr(errors, name), errors.TallystickError)


def test_the_files_and_folders_it_names_exist():
    for path in re.findall(r"`((?:[a-z_]+/)+[a-z_.]*|[\w-]+\.(?:yml|md|py))`", README):
        places = (ROOT, ROOT / "tallystick")
        assert any((place / path).exists() for place in places), path


async def test_its_example_is_the_file_and_runs(
    temporal_server: TemporalServer, temporal: Client, database_url: str
):
    (snippet,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert EXAMPLE.read_text().endswith(snippet)

    async with open_house(temporal, database_url, "acme"):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(EXAMPLE),
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "TEMPORAL_ADDRESS": temporal_server.address},
        )
        out, _ = await process.communicate()
    assert re.search(r"^charged \$0\.\d+: ", out.decode(), re.MULTILINE)
