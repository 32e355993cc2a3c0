"""From a sum that differs to the minutes and the events that make the difference.

A meter's sums cost a call each, so an hour is halved: the other half of a sum that is known need
not be asked for. What is only derived is not believed, though: the other side may have counted on
between two calls, and a minute is asked for itself before it is called different. Halves whose sums
agree are left alone, so two differences that cancel each other out inside one are not found; they
cancel out in every sum that anybody is charged by, too.
"""

import itertools
import math
from collections.abc import Generator, Mapping, Sequence

MOST_EVENTS = 3
"""How many events at a time are tried as the reason of a difference: more explain everything."""
MOST_TRIED = 200_000
"""Sets that are tried at the most, some 30 milliseconds: three out of a hundred, two of 600."""


def differing(sent: Mapping[int, int], counted: Mapping[int, int]) -> list[int]:
    """Return the hours in which two sides' sums differ, in order; what is left out is zero."""
    return sorted(
        hour for hour in sent.keys() | counted.keys() if sent.get(hour, 0) != counted.get(hour, 0)
    )


def narrow(expected: Sequence[int], counted: int) -> Generator[range, int, dict[int, int]]:
    """Find which of equal spans differ, by asking for sums over several of them.

    Yields the indices whose sum it wants to know; to be sent what the other side counts there.

    Args:
        expected: what one side has in each span.
        counted: what the other has in all of them.

    Returns:
        What the other side counts in each span that differs, by its index.
    """
    return (yield from _within(expected, range(len(expected)), counted, asked=True))


def _within(
    expected: Sequence[int], span: range, counted: int, *, asked: bool
) -> Generator[range, int, dict[int, int]]:
    if counted == sum(expected[span.start : span.stop]):
        return {}
    if len(span) == 1:
        if not asked:
            return (yield from _within(expected, span, (yield span), asked=True))
        return {span.start: counted}
    middle = len(span) // 2
    first, second = span[:middle], span[middle:]
    of_first = yield first
    found = yield from _within(expected, first, of_first, asked=True)
    return found | (yield from _within(expected, second, counted - of_first, asked=False))


def explaining(values: Sequence[int], difference: int) -> list[tuple[int, ...]]:
    """Return the smallest sets of values, by their indices, that add up to the difference.

    None where no set of up to three does; one where it can be told; two, of perhaps more, where it
    cannot. The fewest are taken as likeliest, and larger sets are then not looked at.
    """
    for size in range(1, MOST_EVENTS + 1):
        if math.comb(len(values), size) > MOST_TRIED:
            break
        sets = itertools.combinations(range(len(values)), size)
        fitting = (each for each in sets if sum(values[i] for i in each) == difference)
        if found := list(itertools.islice(fitting, 2)):
            return found
    return []
