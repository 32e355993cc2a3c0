"""Meter names and identifiers: stable, unique, within Stripe's limits."""

import pytest

from tallystick.metering import CHARGE_METER, METERS, TOKEN_KINDS, meter_identifier, token_meter


def test_every_kind_has_a_meter_and_the_charge_has_one() -> None:
    assert set(METERS) == {CHARGE_METER, *map(token_meter, TOKEN_KINDS)}
    assert CHARGE_METER == "tallystick_charge_nano_usd"
    assert token_meter("cache_write_5m") == "tallystick_cache_write_5m_tokens"
    assert all(len(name) <= 100 and len(METERS[name]) <= 250 for name in METERS)


def test_a_kind_without_a_meter_is_refused() -> None:
    with pytest.raises(ValueError, match="web_search"):
        token_meter("web_search")


def test_an_identifier_is_short_stable_and_tells_nothing() -> None:
    longest = meter_identifier("c" * 64, "r" * 150, max(METERS, key=len))
    assert len(longest) <= 90  # a repair appends to it
    assert meter_identifier("acme", "r-1", CHARGE_METER) == (
        "tallystick-c0e83dc5bd23781cbef102ffee3bf3a6b79a12fa9cacd256c00cd7c586978cdf"
    )
    assert "acme" not in meter_identifier("acme", "r-1", CHARGE_METER)


def test_identifiers_differ_wherever_the_usage_differs() -> None:
    facts = [
        ("a", "b/c", "m"),
        ("a/b", "c", "m"),
        ("a", "b", "c/m"),
        ('a","b', "c", "m"),
        ("a", 'b","c', "m"),
        ("ab", "", "m"),
        ("", "ab", "m"),
    ]
    assert len({meter_identifier(*fact) for fact in facts}) == len(facts)
