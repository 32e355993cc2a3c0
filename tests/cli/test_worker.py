"""`tallystick worker` and `python -m workers`: they start working, or say in one line why not."""

import sys

from tallystick.sandbox.server import serve
from tallystick.sandbox.stripe import create_stripe_app
from tests.cli.conftest import Production
from tests.cli.shell import Shell, told_by, until_said

MODULE = (sys.executable, "-m", "workers")


async def test_a_worker_that_is_told_to_stop_ends_well(production: Production) -> None:
    worker = await production.shell.start("worker", "--role", "claude")
    await until_said(worker, "working on claude")
    worker.terminate()
    told = await told_by(worker)
    assert told.code == 0
    assert "stopping: calls in flight get 5.0 seconds" in told.err


async def test_a_worker_refuses_a_database_that_is_not_set_up(
    production: Production, bare_database: str
) -> None:
    told = await production.shell.attempt("worker", DATABASE_URL=bare_database)
    assert told.error.endswith("lacks this version's tables; run `tallystick setup`")


async def test_a_worker_refuses_an_account_without_meters(production: Production) -> None:
    async with serve(create_stripe_app()) as empty:
        told = await production.shell.attempt("worker", STRIPE_API_BASE=empty)
    assert told.error.startswith("Stripe lacks the meters tallystick_charge_nano_usd, ")
    assert told.error.endswith("; run `tallystick stripe setup`")


async def test_half_set_keys_are_refused_by_the_module_too(shell: Shell) -> None:
    started = await shell.start(program=MODULE, STRIPE_API_KEY="sk_test_1")
    assert "ANTHROPIC_API_KEY is not; set it too" in (await told_by(started)).error


async def test_a_role_that_is_none_is_refused_with_those_there_are(shell: Shell) -> None:
    told = await shell.attempt("worker", "--role", "baker")
    assert told.error == "--role: 'baker' is no role; use all, requests, claude"
