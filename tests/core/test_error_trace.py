"""The text of a traceback: each exception is told of once, however they refer to one another."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from durably.core.error_trace import TRACEBACK_LIMIT, traceback_text

FEW = st.lists(st.integers(0, 4), max_size=3)


def raised(error: BaseException) -> BaseException:
    try:
        raise error
    except BaseException as caught:
        return caught


def linked(members: list[list[int]], causes: list[int | None], suppressed: list[bool]) -> list[BaseException]:
    """Exceptions, each a group of earlier ones or a single one, that any other may have led to."""
    made: list[BaseException] = []
    for number, inside in enumerate(members):
        parts: Any = [made[each] for each in inside if each < number]
        made.append(raised(BaseExceptionGroup(f"no. {number}", parts) if parts else ValueError(f"no. {number}")))
    for error, cause, is_suppressed in zip(made, causes, suppressed, strict=True):
        other = None if cause is None else made[cause]
        if is_suppressed:
            error.__context__ = other
        else:
            error.__cause__ = other
    return made


@given(
    st.lists(FEW, min_size=5, max_size=5),
    st.lists(st.none() | st.integers(0, 4), min_size=5, max_size=5),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_each_exception_is_told_of_once(
    members: list[list[int]], causes: list[int | None], suppressed: list[bool]
) -> None:
    errors = linked(members, causes, suppressed)
    text = traceback_text(errors[-1])
    assert len(text) <= TRACEBACK_LIMIT + 100
    told = [line.lstrip(" |") for line in text.splitlines()]
    for number in range(5):
        heads = (f"ValueError: no. {number}", f"ExceptionGroup: no. {number}", f"BaseExceptionGroup: no. {number}")
        assert sum(line.startswith(heads) for line in told) <= 1, text
    assert any(": no. 4" in line for line in told)


def test_an_error_that_its_group_led_to_is_not_told_of_twice() -> None:
    error = raised(ValueError("too many"))
    group = raised(BaseExceptionGroup("1 of 2 branches failed", [error]))
    error.__cause__ = group
    text = traceback_text(error)
    assert text.splitlines().count("ValueError: too many") == 1
    assert "1 of 1: ValueError, which is told of beside this" in text
