"""`tallystick prices` and `rate`, which need no server and no key."""

import json

import pytest

from tests.cli.shell import Shell
from tests.pricing.replies import reply, usage


async def test_every_model_with_a_price_that_day_is_shown(shell: Shell) -> None:
    now = (await shell("prices", "show", "--at", "2026-11-20", "--json")).json
    then = (await shell("prices", "show", "--at", "2025-06-01", "--json")).json
    shown = {row["model"] for row in now["prices"]}
    assert "claude-sonnet-5-5" in shown
    assert {row["model"] for row in then["prices"]} < shown
    assert all(row["valid_from"] <= "2025-06-01T" for row in then["prices"])
    assert all(row["source"].startswith("https://") for row in now["prices"])


async def test_a_day_before_every_price_is_an_empty_table_and_says_so(shell: Shell) -> None:
    told = await shell("prices", "show", "--at", "2020-01-01")
    assert "no model of the book had a price then" in told.err


async def test_a_price_is_never_broken_at_80_columns(shell: Shell) -> None:
    table = await shell("prices", "show", "claude-sonnet-5-5", "--at", "2026-10-07")
    assert "claude-sonnet-5-5 - 2 10 2.5 4 0.1" in " ".join(table.out.split())
    assert max(map(len, table.out.splitlines())) <= 80


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["claude-opus-5", "--at", "2020-01-01"], "MODEL: claude-opus-5 has no price before "),
        (["gpt-4"], "MODEL: the price book does not know the model 'gpt-4'"),
        (["--at", "soon"], "--at: 'soon' is neither a date nor an instant"),
    ],
)
async def test_what_has_no_price_is_named(shell: Shell, arguments: list[str], words: str) -> None:
    assert (await shell.attempt("prices", "show", *arguments)).error.startswith(words)


async def test_the_book_is_compared_with_another_catalogue(shell: Shell) -> None:
    told = await shell("prices", "check", "--at", "2026-11-20", "--json")
    assert told.err.endswith("0 of them not explained\n")
    assert all(row["reason"] for row in told.json)


async def test_bad_lines_do_not_stop_the_good_ones(shell: Shell, tmp_path) -> None:
    message = reply("claude-sonnet-5-5", usage(input=1_000, output=10))
    good = json.dumps({"id": "good", "at": "2026-11-20T00:00:00Z", "message": message}).encode()
    lines = b"\n".join([b"garbage", b"\xff\xfe", b"[1]", b"", good])
    file = tmp_path / "replies.jsonl"
    file.write_bytes(lines)
    from_file, from_stdin = await shell("rate", str(file)), await shell("rate", "-", stdin=lines)
    assert from_file.out == from_stdin.out
    *bad, rated = [json.loads(line) for line in from_file.out.splitlines()]
    assert [each["status"] for each in bad] == ["unpriced"] * 3
    assert all(each["reason"] for each in bad)
    assert rated["cost_usd"] == "0.0021"  # 1,000 x $2 + 10 x $10, a million


@pytest.mark.parametrize(
    ("file", "why"), [("/no/such/file", "No such file"), ("/", "Is a directory")]
)
async def test_a_file_that_cannot_be_read_is_named(shell: Shell, file: str, why: str) -> None:
    assert (await shell.attempt("rate", file)).error.startswith(f"FILE: {file}: {why}")
