"""`tallystick batch`: from a folder of documents to their results."""

import asyncio
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Production

ROOT = Path(__file__).parents[2]
PNG = b"\x89PNG\r\n\x1a\n" + b"tally" * 100
ASK = ("--instruction", "Sum it up.", "--model", "claude-haiku-4-5", "--max-tokens", "64")


@pytest.fixture
def papers(tmp_path: Path) -> Path:
    """Five documents of four kinds, and what is none."""
    folder = tmp_path / "papers"
    (folder / "deeds").mkdir(parents=True)
    for number in range(3):
        (folder / "deeds" / f"{number}.md").write_text(f"Deed {number}. Oak was owed. " * 40)
    (folder / "notch.txt").write_text("Ein Kerbholz für Köln.")
    (folder / "stick.png").write_bytes(PNG)
    (folder / "ledger.xlsx").write_bytes(b"PK")
    (folder / ".hidden.txt").write_text("nobody looks here")
    return folder


NAMES = ["deeds/0.md", "deeds/1.md", "deeds/2.md", "notch.txt", "stick.png"]


async def test_a_folder_of_documents_comes_back_as_texts_and_is_one_job_however_often_it_is_sent(
    production: Production, papers: Path, tmp_path: Path
) -> None:
    customer, shell = await production.customer(), production.shell
    send = ("batch", "submit", customer, str(papers), *ASK)
    dry = (await shell(*send, "--dry-run", "--json")).json
    told = await shell(*send, "--yes")
    job = told.out.strip()
    assert job == dry["job_id"]
    assert "not looked at: 1 .xlsx" in told.err
    assert "5 requests" in told.err
    assert "less than in single calls" in told.err

    followed = await shell("batch", "status", job, "--follow", "--json")
    progress = followed.json
    assert (progress["state"], progress["succeeded"], progress["refused"]) == ("ended", 5, None)
    charged, quoted = Decimal(progress["charge_usd"]), dry["quote"]
    assert 0 < charged < Decimal(quoted["highest_usd"])
    assert Decimal(quoted["highest_usd"]) == Decimal(progress["highest_charge_usd"])
    assert Decimal(quoted["saves_usd"]) == Decimal(quoted["highest_usd"])  # half of the price
    assert Decimal(progress["batch_saves_usd"]) == charged

    script = await shell.start(
        *send[2:], program=(sys.executable, str(ROOT / "scripts/submit_batch.py"))
    )
    into = tmp_path / "sums"
    sent, used, shown, _, by_script = await asyncio.gather(
        shell(*send, "--json"),  # nobody need be asked
        shell("usage", "--customer", customer, "--json"),
        shell("batch", "results", job),
        shell("batch", "results", job, "--out", str(into)),
        script.communicate(),
    )
    assert by_script[0].decode().strip() == job
    again = sent.json
    assert (again["job_id"], again["submitted_before"]) == (job, True)
    assert Decimal(again["progress"]["charge_usd"]) == charged
    assert [(each["requests"], Decimal(each["charge_usd"])) for each in used.json] == [(5, charged)]
    lines = _lines(shown.out)
    assert [line["document"] for line in lines] == NAMES
    assert sum(Decimal(line["charge_usd"]) for line in lines) == charged
    texts = {f"{line['document']}.txt": line["message"]["content"][0]["text"] for line in lines}
    written = {path.relative_to(into).as_posix(): path for path in into.rglob("*.txt")}
    assert {name: path.read_text() for name, path in written.items()} == texts


async def test_requests_in_a_file_keep_their_ids_and_a_failure_is_listed_by_name(
    production: Production, tmp_path: Path
) -> None:
    customer, shell = await production.customer(), production.shell
    path, out = tmp_path / "asks.jsonl", tmp_path / "answers.jsonl"
    own = {"request_id": f"{customer}-own", "params": _body("Why oak?")}
    # Claude refuses it; whoever measures it finds nothing wrong.
    bad = {"params": {**_body("Why ash?"), "temperature": 0.5}}
    path.write_text("".join(json.dumps(each) + "\n" for each in (own, bad)))
    sent = await shell(
        "batch", "submit", customer, str(path), "--job-id", f"{customer}/job", "--yes", "--json"
    )
    job = sent.json["job_id"]
    assert job == f"{customer}/job"
    shown = await shell("batch", "status", job, "--follow")
    assert "1 of 2 succeeded, 1 did not" in shown.err
    told, other = await asyncio.gather(
        shell("batch", "results", job, "--out", str(out)),
        shell.attempt(
            "batch", "submit", customer, str(path), "--job-id", job, "--yes", "--max-tokens", "5"
        ),
    )
    assert "line 2: errored (invalid_request_error" in told.err
    first, second = _lines(out.read_text())
    assert (first["request_id"], first["outcome"]) == (f"{customer}-own", "succeeded")
    assert (second["request_id"], second["outcome"]) == (f"{job}/1", "errored")
    assert second["charge_usd"] is None
    assert "was submitted before with other items" in other.error


async def test_a_cancelled_job_ends_and_costs_what_was_served(
    production: Production, papers: Path
) -> None:
    customer, shell = await production.customer(), production.shell
    job = (await shell("batch", "submit", customer, str(papers), *ASK, "--yes")).out.strip()
    await shell("batch", "cancel", job)
    ended = (await shell("batch", "status", job, "--follow", "--json")).json
    assert ended["state"] == "ended"
    assert ended["succeeded"] + ended["canceled"] == 5
    assert (await shell("batch", "cancel", job, "--json")).json["state"] == "ended"


async def test_nothing_is_stored_of_a_job_that_is_too_dear_or_that_nobody_agreed_to(
    production: Production, papers: Path
) -> None:
    customer, shell = await production.customer(), production.shell
    send = ("batch", "submit", customer, str(papers), *ASK)
    dear, unasked, dry = await asyncio.gather(
        shell.attempt(*send, "--yes", "--max-cost", "0.0001"),
        shell.attempt(*send),
        shell(*send, "--dry-run"),
    )
    assert dear.error.startswith("--max-cost: the job may be charged up to $0.")
    assert unasked.error.startswith("--yes: nobody is here to be asked")
    job = dry.err.split()[-1]
    unknown = await shell.attempt("batch", "status", job)
    assert unknown.error.startswith(f"JOB: no job '{job}' was submitted")


async def test_a_refused_job_says_why(production: Production, papers: Path) -> None:
    customer, shell = await production.customer(), production.shell
    await shell("customer", "cap", customer, "--spend-cap", "0.0001")
    job = (await shell("batch", "submit", customer, str(papers), *ASK, "--yes")).out.strip()
    told = await shell.attempt("batch", "status", job, "--follow")
    assert f"error: JOB: '{job}' does not go on: " in told.err
    assert "spend cap" in told.err
    assert told.code == 1


async def test_bad_input_is_named(production: Production, papers: Path, tmp_path: Path) -> None:
    customer, shell = await production.customer(), production.shell
    (papers / "blank.txt").write_text(" \n")
    no_place = tmp_path / "template.txt"
    no_place.write_text("Sum up {name}.")
    send = ("batch", "submit", customer)
    wrong = (
        ((str(tmp_path / "none"),), "PATH: there is no folder and no file "),
        ((str(papers),), "--instruction: say what to do with each document"),
        (
            (str(papers), "--template", str(no_place)),
            f"--template: '{no_place}' has no {{document}}",
        ),
        ((str(papers), *ASK, "--job-id", "a b"), "--job-id: 'a b' should be"),
        ((str(papers), *ASK), "PATH: 1 of 6 cannot be sent; mend them, or leave them out"),
    )
    left_out, nobody, *told = await asyncio.gather(
        shell(*send, str(papers), *ASK, "--skip-unfit", "--dry-run", "--json"),
        shell.attempt("batch", "submit", "nobody", str(papers), *ASK, "--dry-run"),
        *(shell.attempt(*send, *arguments, "--dry-run") for arguments, _ in wrong),
    )
    for each, (_, error) in zip(told, wrong, strict=True):
        assert each.error.startswith(error), each
    assert "blank.txt: empty" in told[-1].err
    assert (left_out.json["quote"]["requests"], left_out.json["quote"]["left_out"]) == (5, 1)
    assert nobody.error.startswith("CUSTOMER: no customer 'nobody'")


def _body(text: str) -> dict[str, Any]:
    return {
        "model": "claude-haiku-4-5",
        "max_tokens": 64,
        "messages": [{"role": "user", "content": text}],
    }


def _lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]
