"""From a sum that differs to its minutes, and to the events that make the difference."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tallystick.reconciling.narrowing import differing, explaining, narrow

HOUR = st.lists(st.integers(0, 1_000), min_size=60, max_size=60)
MISSING = st.dictionaries(st.integers(0, 59), st.integers(1, 500), max_size=6)


def searched(expected: Sequence[int], counted: Sequence[int]) -> tuple[dict[int, int], int]:
    """Search as whoever asks the other side does; returns what is found, and the questions."""
    search = narrow(expected, sum(counted))
    asked = 0
    try:
        span = next(search)
        while True:
            asked += 1
            span = search.send(sum(counted[span.start : span.stop]))
    except StopIteration as done:
        return done.value, asked


@given(HOUR, MISSING, st.sampled_from([1, -1]))
def test_every_minute_that_differs_is_found_in_few_questions(
    expected: list[int], off: dict[int, int], sign: int
) -> None:
    counted = [value + sign * off.get(minute, 0) for minute, value in enumerate(expected)]
    found, asked = searched(expected, counted)
    assert found == {minute: counted[minute] for minute in off}
    assert asked <= 7 * len(off)


def test_an_hour_that_agrees_costs_no_question() -> None:
    assert searched([1] * 60, [1] * 60) == ({}, 0)


def test_a_minute_is_asked_for_itself_before_it_is_called_different() -> None:
    """The other side counts on between two questions: what is derived from both is nonsense."""
    search = narrow([10, 10], 15)
    assert next(search) == range(1)
    assert search.send(10) == range(1, 2)  # five too few are left for it
    with pytest.raises(StopIteration) as done:
        search.send(10)  # they have come meanwhile
    assert done.value.value == {}


def test_hours_that_one_side_does_not_have_are_zero_there() -> None:
    assert differing({1: 5, 2: 7, 3: 0}, {2: 7, 4: 1}) == [1, 4]


@given(st.lists(st.integers(1, 10**6), max_size=12), st.data())
def test_what_explains_a_difference_adds_up_to_it_and_nothing_smaller_does(
    values: list[int], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(range(len(values))), max_size=3, unique=True)
                       if values else st.just([]))  # fmt: skip
    difference = sum(values[index] for index in chosen)
    found = explaining(values, difference)
    assert bool(found) == bool(chosen)
    for each in found:
        assert sum(values[index] for index in each) == difference
        assert len(each) <= len(chosen)


@pytest.mark.parametrize(
    ("values", "difference", "sets"),
    [
        ([5, 7, 12], 7, [(1,)]),
        ([5, 7, 12], 12, [(2,)]),  # and not 5 and 7: the fewest are the likeliest
        ([5, 7, 13], 12, [(0, 1)]),
        ([5, 7, 7], 7, [(1,), (2,)]),  # which of the two cannot be told
        ([5, 7, 12], 100, []),
        ([1, 2, 4, 8], 15, []),  # four at a time explain everything
        ([1] * 300 + [2], 2, [(300,)]),
        ([1] * 300, 3, []),  # too many sets to try
    ],
)
def test_the_fewest_events_explain(
    values: list[int], difference: int, sets: list[tuple[int, ...]]
) -> None:
    assert explaining(values, difference) == sets
