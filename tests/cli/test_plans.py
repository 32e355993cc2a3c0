"""`tallystick plan`: dated terms that are only ever added."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.cli.conftest import Production

HYBRID = """
model = "hybrid"
markup = 0.1
base_fee_usd = 19.9
allowance = { usd = 20 }
tiers = { mode = "volume", brackets = [{ up_to_usd = 100, factor = 1 }, { factor = 0.9 }] }
"""


async def test_the_examples_are_listed_in_words(production: Production) -> None:
    told = await production.shell("plan", "list")
    words = " ".join(told.out.split())
    assert "at-cost" in words
    assert "prepaid, markup 0.25, a balance under $20 is low" in words
    listed = (await production.shell("plan", "list", "--json")).json
    assert {"pass-through", "prepaid", "hybrid"} <= {row["plan"] for row in listed}


async def test_a_plan_is_added_exactly_and_its_new_terms_stand_beside_the_old(
    production: Production, tmp_path: Path
) -> None:
    file = tmp_path / "team.toml"
    file.write_text(HYBRID)
    (added,) = (await production.shell("plan", "add", "team", "--from", str(file), "--json")).json
    assert (added["terms"]["markup"], added["terms"]["base_fee_usd"]) == ("0.1", "19.9")
    assert added["terms"]["allowance"]["usd"] == "20"

    file.write_text(HYBRID.replace("19.9", "24.9"))
    later = (datetime.now(UTC) + timedelta(days=40)).date().isoformat()
    add = ("plan", "add", "team", "--from", str(file), "--valid-from", later)
    told = await production.shell(*add)
    assert "base fee $24.9, $20 of usage included" in " ".join(told.out.split())
    again = await production.shell.attempt(*add)
    assert again.error.startswith("--valid-from: plan 'team' has terms from then on; ")

    shown = (await production.shell("plan", "show", "team", "--json")).json
    assert [row["terms"]["base_fee_usd"] for row in shown] == ["19.9", "24.9"]
    listed = (await production.shell("plan", "list", "--json")).json
    (now,) = (row for row in listed if row["plan"] == "team")
    assert now["terms"]["base_fee_usd"] == "19.9"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("ok", "model = 'hybrid'\nmarkup = 'much'", "terms.markup: "),
        ("ok", "model = 'hybrid'", "terms: base_fee_usd: a hybrid plan needs one"),
        ("ok", "model = 'prepaid'\nmarkups = 1", "terms.markups: "),
        ("ok", "model = ", "is not TOML: "),
        ("Not A Name", "model = 'prepaid'", "NAME: 'Not A Name' is no name of a plan"),
        ("hybrid", "model = 'prepaid'", "terms.model: plan 'hybrid' is hybrid, and a plan keeps"),
    ],
)
async def test_terms_that_are_none_are_refused_by_name(
    production: Production, tmp_path: Path, name: str, text: str, words: str
) -> None:
    file = tmp_path / "plan.toml"
    file.write_text(text)
    told = await production.shell.attempt("plan", "add", name, "--from", str(file))
    assert words in told.error
    assert told.error.startswith(("--from: ", "NAME: "))


async def test_what_has_passed_keeps_its_terms(production: Production, tmp_path: Path) -> None:
    file = tmp_path / "plan.toml"
    file.write_text("model = 'pass-through'")
    add = ("plan", "add", "at-cost", "--from", str(file), "--valid-from", "2026-01-02")
    assert (await production.shell.attempt(*add)).error.startswith("--valid-from: what has passed ")
    missing = ("plan", "add", "new", "--from", str(tmp_path / "none.toml"))
    assert (await production.shell.attempt(*missing)).error.endswith(": No such file or directory")
    shown = await production.shell.attempt("plan", "show", "none")
    assert shown.error == "NAME: no plan 'none'; `tallystick plan list` lists all"
