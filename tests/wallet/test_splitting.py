"""How a charge is split over grants, for any grants: pure, by properties."""

from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from tallystick.plans.wallet import ALERT_PERCENTS, OpenGrant, percents_passed, split
from tests.wallet.purse import NOON

_instants = st.integers(-3, 3).map(lambda hours: NOON + timedelta(hours=hours))
_grants = st.lists(
    st.builds(
        OpenGrant,
        grant_id=st.integers(1, 10**6),
        priority=st.integers(0, 3),
        granted_at=_instants,
        expires_at=st.none() | _instants,
        remaining_nano_usd=st.integers(1, 10),
    ),
    unique_by=lambda grant: grant.grant_id,
)


@given(_grants, st.integers(0, 60), _instants)
def test_shares_add_up_and_none_is_more_than_its_grant_has(
    grants: list[OpenGrant], nano_usd: int, at: object
) -> None:
    shares = split(grants, nano_usd, at)
    left = {grant.grant_id: grant.remaining_nano_usd for grant in grants}
    assert sum(share.nano_usd for share in shares) == nano_usd
    assert all(share.nano_usd > 0 for share in shares)
    burnt = [share.grant_id for share in shares]
    assert len(set(burnt)) == len(burnt)
    assert all(share.nano_usd <= left[share.grant_id] for share in shares if share.grant_id)


@given(_grants, st.integers(1, 60), _instants)
def test_a_grant_burns_only_when_those_before_it_are_empty(
    grants: list[OpenGrant], nano_usd: int, at: object
) -> None:
    shares = {share.grant_id: share.nano_usd for share in split(grants, nano_usd, at)}
    covering = [grant for grant in grants if grant.expires_at is None or at < grant.expires_at]
    emptied = {
        grant.grant_id
        for grant in covering
        if shares.get(grant.grant_id) == grant.remaining_nano_usd
    }
    for grant in grants:
        if grant not in covering:
            assert grant.grant_id not in shares
        elif shares.get(grant.grant_id):
            assert all(_before(other, grant) <= (other.grant_id in emptied) for other in covering)
    if None in shares:
        assert len(emptied) == len(covering)


def _before(one: OpenGrant, other: OpenGrant) -> bool:
    """The rule in words: priority, then expiry, then age."""
    if one.priority != other.priority:
        return one.priority < other.priority
    if one.expires_at != other.expires_at:
        return other.expires_at is None or (
            one.expires_at is not None and one.expires_at < other.expires_at
        )
    return (one.granted_at, one.grant_id) < (other.granted_at, other.grant_id)


@given(st.integers(-10, 400), st.integers(-1, 200))
def test_a_share_is_passed_when_it_is_reached(used: int, limit: int) -> None:
    passed = percents_passed(used, limit)
    assert passed == (
        tuple(each for each in ALERT_PERCENTS if used >= limit * each / 100) if limit > 0 else ()
    )
