"""Bad input from a shell: one line that names the field or setting, and an exit code that is not 0.

That no answer holds a traceback or a secret is checked in every run (`tests.cli.shell`).
"""

import psycopg
import pytest

from tallystick.embedded import free_port
from tests.cli.conftest import Production
from tests.cli.shell import SECRET, Shell


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["request", "nobody", "hi"], "customer_id: no customer 'nobody'; add it with "),
        (["request", "{}", "hi", "--id", "no spaces"], "request_id: "),
        (["customer", "add", "no spaces"], "CUSTOMER: 'no spaces' is no customer id; use "),
        (["customer", "add", "new", "--time-zone", "Mars"], "--time-zone: 'Mars' is not a time"),
        (["customer", "cap", "{}", "--spend-cap", "x"], "--spend-cap: 'x' is not an amount in"),
        (["usage", "--customer", "nobody"], "CUSTOMER: no customer 'nobody'"),
    ],
)
async def test_the_field_is_named(production: Production, arguments: list[str], words: str) -> None:
    customer = await production.customer()
    told = await production.shell.attempt(*(each.replace("{}", customer) for each in arguments))
    assert told.error.startswith(words)


async def test_nothing_of_a_refused_customer_is_left_behind(production: Production) -> None:
    added = production.shell.attempt("customer", "add", "never", "--plan", "none")
    assert (await added).error.startswith("--plan: no plan 'none' is in force; ")
    shown = await production.shell.attempt("customer", "show", "never")
    assert shown.error.startswith("CUSTOMER: no customer 'never'; `tallystick customer add never`")


@pytest.mark.parametrize(
    ("settings", "command", "words"),
    [
        (
            {"ANTHROPIC_API_KEY": SECRET},
            "stripe setup",
            "ANTHROPIC_API_KEY is set but STRIPE_API_KEY is not; set it too, or set "
            "TALLYSTICK_SANDBOX=stripe to use the stand-in for it",
        ),
        (
            {"STRIPE_API_KEY": SECRET},
            "dev",
            "STRIPE_API_KEY is set but ANTHROPIC_API_KEY is not; set it too, or set "
            "TALLYSTICK_SANDBOX=claude to use the stand-in for it",
        ),
        ({"TALLYSTICK_CLAUDE_RPM": "fast"}, "usage", "TALLYSTICK_CLAUDE_RPM: "),
        ({"DATABASE_URL": f"my {SECRET}"}, "usage", "DATABASE_URL: must be an address like "),
        (
            {"DATABASE_URL": f"postgresql://ledger:{SECRET}@127.0.0.1/x?bogus=1"},
            "usage",
            'PostgreSQL does not answer: invalid connection option "bogus"; DATABASE_URL says ',
        ),
    ],
)
async def test_the_setting_is_named(
    shell: Shell, settings: dict[str, str], command: str, words: str
) -> None:
    told = await shell.attempt(*command.split(), **settings)
    assert told.error.startswith(words)


@pytest.mark.parametrize("command", ["usage", "worker"])
async def test_an_absent_postgresql_is_told_with_the_setting(shell: Shell, command: str) -> None:
    address = f"postgresql://ledger:{SECRET}@127.0.0.1:{free_port()}/ledger"
    told = await shell.attempt(*command.split(), DATABASE_URL=address)
    assert told.error.startswith("PostgreSQL does not answer: ")
    assert "Connection refused" in told.error
    assert told.error.endswith("; DATABASE_URL says where it is")


@pytest.mark.parametrize("command", ["setup", "request acme hello"])
async def test_an_absent_temporal_is_told_with_the_setting(
    production: Production, command: str
) -> None:
    address = f"127.0.0.1:{free_port()}"
    told = await production.shell.attempt(*command.split(), TEMPORAL_ADDRESS=address)
    assert told.error.startswith(f"no Temporal server answers at {address}; ")
    assert told.error.endswith("set TEMPORAL_ADDRESS to where yours is")


async def test_an_address_of_temporal_that_is_none_is_told_alike(shell: Shell) -> None:
    told = await shell.attempt("request", "acme", "hello", TEMPORAL_ADDRESS="not an address")
    assert told.error.startswith("no Temporal server answers at not an address; ")


async def test_a_database_of_a_newer_version_is_left_alone(
    production: Production, bare_database: str
) -> None:
    await production.shell("setup", DATABASE_URL=bare_database)
    plain = bare_database.replace("postgresql+psycopg://", "postgresql://")
    async with await psycopg.AsyncConnection.connect(plain, autocommit=True) as connection:
        await connection.execute("UPDATE alembic_version SET version_num = '9999'")
    told = await production.shell.attempt("setup", DATABASE_URL=bare_database)
    assert told.error.startswith("the database was set up by another version of Tallystick")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["custmer", "list"], "Did you mean 'customer'?"),
        (["dev", "--port", "99999"], "Invalid value for '--port'"),
    ],
)
async def test_a_command_that_is_misspelt_is_shown_its_usage(
    shell: Shell, arguments: list[str], words: str
) -> None:
    told = await shell.attempt(*arguments)
    assert told.code == 2
    assert words in told.err
    assert "--help' for help" in told.err
