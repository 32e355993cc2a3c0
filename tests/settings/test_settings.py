"""Settings: where a value comes from, what is refused, and that refusals keep secrets."""

import base64
import os
import sys
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path

import pytest

from tallystick.settings import Settings, SettingsError, get_settings

SECRET = "hunter2-marker"
KEY = base64.b64encode(b"hunter2-marker-hunter2-marker-32").decode()
CLAUDE, STRIPE = {"ANTHROPIC_API_KEY": "sk-ant-1"}, {"STRIPE_API_KEY": "sk_test_1"}


@pytest.fixture(autouse=True)
def _only_what_a_test_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("TALLYSTICK_"):
            monkeypatch.delenv(name)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch):
    def with_environment(environment: Mapping[str, str]) -> Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return get_settings()

    return with_environment


def test_with_nothing_set_both_stand_ins_are_used_and_the_guards_hold(read) -> None:
    settings = read({})
    assert settings.sandboxed == {"claude", "stripe"}
    assert settings.max_input_tokens == 100_000
    assert settings.max_cost_usd == Decimal(10)
    assert settings.database_url is None
    assert settings.home == Path(".tallystick")


def test_the_environment_goes_before_defaults_and_arguments_before_both(read) -> None:
    assert read({"TALLYSTICK_MAX_COST_USD": "0.25"}).max_cost_usd == Decimal("0.25")
    assert Settings(max_cost_usd=Decimal(7)).max_cost_usd == Decimal(7)
    assert Settings(database_url="postgresql://a/b").database_url == "postgresql://a/b"


def test_a_variable_that_is_set_to_nothing_counts_as_unset(read) -> None:
    settings = read({"ANTHROPIC_API_KEY": "", "TALLYSTICK_MAX_COST_USD": "", "DATABASE_URL": ""})
    assert settings.anthropic_api_key is None
    assert settings.max_cost_usd == Decimal(10)
    assert settings.database_url is None


def test_names_that_others_use_too_have_no_prefix_of_ours(read) -> None:
    settings = read(
        {
            "DATABASE_URL": "postgresql://right/name",
            "TALLYSTICK_DATABASE_URL": "postgresql://wrong/name",
            "TEMPORAL_ADDRESS": "temporal:7233",
        }
    )
    assert settings.database_url == "postgresql://right/name"
    assert settings.temporal_address == "temporal:7233"


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("whsec_1", ["whsec_1"]),
        ("whsec_1,whsec_2", ["whsec_1", "whsec_2"]),
        (" whsec_1 , whsec_2 ,", ["whsec_1", "whsec_2"]),
        ("", []),
    ],
)
def test_several_webhook_secrets_are_separated_by_commas(read, text, secrets) -> None:
    found = read({"STRIPE_WEBHOOK_SECRET": text}).stripe_webhook_secret
    assert [secret.get_secret_value() for secret in found] == secrets


@pytest.mark.parametrize(
    ("environment", "stand_ins"),
    [
        ({}, {"claude", "stripe"}),
        ({**CLAUDE, **STRIPE}, set()),
        ({**CLAUDE, "TALLYSTICK_SANDBOX": "stripe"}, {"stripe"}),
        ({**STRIPE, "TALLYSTICK_SANDBOX": "claude"}, {"claude"}),
        ({"TALLYSTICK_SANDBOX": "claude"}, {"claude", "stripe"}),
    ],
)
def test_keys_and_the_asked_for_stand_in_decide_what_is_real(read, environment, stand_ins) -> None:
    assert read(environment).sandboxed == stand_ins


@pytest.mark.parametrize(
    ("environment", "missing", "remedy"),
    [
        (CLAUDE, "STRIPE_API_KEY is not", "TALLYSTICK_SANDBOX=stripe"),
        (STRIPE, "ANTHROPIC_API_KEY is not", "TALLYSTICK_SANDBOX=claude"),
        (
            {**CLAUDE, "TALLYSTICK_SANDBOX": "claude"},
            "while ANTHROPIC_API_KEY is set",
            "unset one of them",
        ),
        (
            {**CLAUDE, **STRIPE, "TALLYSTICK_SANDBOX": "stripe"},
            "while STRIPE_API_KEY is set",
            "unset one of them",
        ),
    ],
)
def test_half_set_keys_are_refused_with_both_remedies(read, environment, missing, remedy) -> None:
    settings = read(environment)
    with pytest.raises(SettingsError) as refused:
        _ = settings.sandboxed
    assert missing in str(refused.value)
    assert remedy in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TALLYSTICK_CLAUDE_RPM", "fast"),
        ("TALLYSTICK_CLAUDE_RPM", "0"),
        ("TALLYSTICK_CLAUDE_CONCURRENCY", "0"),
        ("TALLYSTICK_STRIPE_RPS", "-1"),
        ("TALLYSTICK_STRIPE_RPS", "inf"),
        ("TALLYSTICK_LEDGER_CONCURRENCY", "many"),
        ("TALLYSTICK_METER_CONCURRENCY", "1.5"),
        ("TALLYSTICK_MAX_INPUT_TOKENS", "-1"),
        ("TALLYSTICK_MAX_UNKNOWN_OUTCOMES", "0"),
        ("TALLYSTICK_MAX_COST_USD", "ten"),
        ("TALLYSTICK_MAX_COST_USD", "NaN"),
        ("TALLYSTICK_MAX_COST_USD", "0"),
        ("TALLYSTICK_CONVERSATION_CAP_USD", "-5"),
        ("TALLYSTICK_CLAUDE_TIMEOUT", "inf"),
        ("TALLYSTICK_STRIPE_TIMEOUT", "0"),
        ("TALLYSTICK_METER_LINGER", "-1"),
        ("TALLYSTICK_SHUTDOWN_GRACE", "nan"),
        ("TALLYSTICK_SANDBOX", "both"),
        ("TALLYSTICK_STRIPE_TRANSPORT", "pigeon"),
        ("TALLYSTICK_PAYLOAD_KEYS", SECRET),
        ("TALLYSTICK_CODEC_TOKEN", f"{SECRET}/../"),
        ("TALLYSTICK_CODEC_TOKEN", SECRET[:8]),
        ("DATABASE_URL", f"my database, {SECRET}"),
        ("DATABASE_URL", f"mysql://ledger:{SECRET}@host/name"),
        ("DATABASE_URL", f"postgresql+asyncpg://ledger:{SECRET}@host/name"),
        ("DATABASE_URL", f"postgresql://ledger:{SECRET}@host:port/name"),
        ("DATABASE_URL", f"postgresql://ledger:{SECRET}@[::1/name"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name_in_one_line(read, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}: .+") as refused:
        read({name: value})
    assert "\n" not in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "url",
    [
        "postgres://ledger:word@host/name",
        "postgresql://ledger:word@host:5432/name?sslmode=require",
        "postgresql+psycopg://postgres:@/postgres?host=/run/postgresql",
    ],
)
def test_the_usual_addresses_of_postgresql_are_taken_as_they_are(read, url: str) -> None:
    assert read({"DATABASE_URL": url}).database_url == url


@pytest.mark.parametrize("alone", ["TALLYSTICK_DEPLOYMENT", "TALLYSTICK_BUILD_ID"])
def test_a_versioned_worker_names_deployment_and_build(read, alone: str) -> None:
    assert read({}).version is None
    with pytest.raises(SettingsError, match="set both, or neither"):
        _ = read({alone: "a"}).version
    both = {"TALLYSTICK_DEPLOYMENT": "billing", "TALLYSTICK_BUILD_ID": "a"}
    assert read(both).version == ("billing", "a")


def test_tracing_without_its_extra_is_refused_with_the_extra_s_name(
    read, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert read({"TALLYSTICK_TRACING": "true"}).tracing
    monkeypatch.setitem(sys.modules, "opentelemetry.exporter.otlp.proto.http", None)  # not there
    with pytest.raises(SettingsError, match=r"^TALLYSTICK_TRACING: .*tallystick\[otel\]"):
        read({})


def test_settings_that_are_printed_or_logged_show_no_key(read) -> None:
    settings = read(
        {
            "ANTHROPIC_API_KEY": SECRET,
            "ANTHROPIC_ADMIN_KEY": SECRET,
            "STRIPE_API_KEY": SECRET,
            "STRIPE_WEBHOOK_SECRET": f"{SECRET},{SECRET}",
            "TALLYSTICK_PAYLOAD_KEYS": f"a:{KEY}",
            "TALLYSTICK_CODEC_TOKEN": f"{SECRET}-of-codec",
        }
    )
    for secret in (SECRET, KEY):
        assert secret not in repr(settings)
        assert secret not in str(settings.model_dump())
