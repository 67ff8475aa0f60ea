"""Errors carry data, survive JSON and pickling, and know whether to be retried."""

from __future__ import annotations

import pickle
from datetime import UTC, datetime, timedelta

import pytest

from durably.core import errors
from durably.core.errors import (
    ContextWindowExceededError,
    DurablyError,
    InvokeError,
    JournalCorruptError,
    ModelError,
    NonDeterminismError,
    NonRetriableError,
    PayloadTooLargeError,
    RetryAfterError,
    RunNotFoundError,
    StepError,
    StepTimeoutError,
    UnsupportedFeatureError,
    error_from_json,
    error_to_json,
    is_retriable,
)

EXAMPLES = [
    errors.AmbiguousRunIdError(prefix="a", run_ids=["ab", "ac"]),
    errors.AnswerFailedError("down", provider="p", model="m", status=500),
    errors.ApprovalNotPendingError(approval="a", reason="b", by="c", at=1.0),
    errors.ConcurrentStepError(step="a"),
    errors.CrashLoopError(crashes=6, since=1767225600.0),
    errors.StepCrashedError(step="a", attempts=6, crashes=6, since=1767225600.0),
    ContextWindowExceededError("long", provider="p", model="m", status=400),
    errors.DefinitionError("wrong"),
    DurablyError("plain"),
    InvokeError(step="i", error_type="ValueError", message="x", function="f", run_id="r"),
    JournalCorruptError(run_id="r", seq=3),
    errors.FunctionNotFoundError(function="f", near=["g"]),
    errors.EngineUnavailableError(server="127.0.0.1:7233", reason="connection refused"),
    errors.JournalBusyError(path="runs.db", holder="process 7"),
    errors.TooManyStepsError(step="a", what="steps in one run", count=1_001, limit=1_000),
    errors.JournalError("full"),
    errors.MissingKeyError(function="f", option="singleton", key="user.id"),
    ModelError("busy", provider="p", model="m", status=529, request_id="q", retriable=True, retry_after=2.5),
    errors.NestedStepError(step="a", inside="b"),
    NonDeterminismError(step="a", recorded="x", asked="y"),
    NonRetriableError("stop"),
    PayloadTooLargeError(step="a", size=9, limit=3),
    RetryAfterError("later", delay=3),
    errors.RunCancelledError(step="i", error_type="E", message="x", function="f", run_id="r"),
    errors.RunExistsError(run_id="r", function="f", asked="g"),
    RunNotFoundError("r"),
    errors.RunNotFailedError(run_id="r", status="completed"),
    errors.StepNotFoundError(run_id="r", step="a", near=["b"]),
    errors.SerializationError("bad", step="a"),
    errors.StaleRunError(run_id="r", fence=2),
    StepError(step="a", attempts=4, error_type="OSError", message="x"),
    errors.StepInterruptedError(step="a", attempts=1, error_type="E", message="x"),
    StepTimeoutError(step="a", attempts=4, error_type="TimeoutError", message="x"),
    errors.StepCancelledError(step="a"),
    errors.ToolError("no"),
    UnsupportedFeatureError(backend="b", feature="f", reason="r"),
]


def test_every_error_has_an_example() -> None:
    ours = {each for each in DurablyError._classes.values() if each.__module__ == errors.__name__}
    assert {type(each) for each in EXAMPLES} == ours


@pytest.mark.parametrize("error", EXAMPLES, ids=lambda error: type(error).__name__)
def test_an_error_survives_json_and_pickling(error: DurablyError) -> None:
    for again in (error_from_json(error_to_json(error)), pickle.loads(pickle.dumps(error))):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert vars(again) == vars(error)


def test_a_foreign_error_keeps_its_name_and_text() -> None:
    assert str(error_from_json(error_to_json(KeyError("k")))) == "KeyError: 'k'"


def test_what_is_retried() -> None:
    assert is_retriable(OSError())
    assert is_retriable(RetryAfterError("later", delay=1))
    assert is_retriable(ModelError("busy", provider="p", model="m", retriable=True))
    assert is_retriable(ExceptionGroup("", [NonRetriableError("a"), OSError()]))
    assert not is_retriable(ExceptionGroup("", [NonRetriableError("a")]))
    assert not is_retriable(NonRetriableError("stop"))
    assert not is_retriable(StepError(step="a", attempts=1, error_type="E", message=""))


def test_retry_after_takes_seconds_a_timedelta_or_a_moment() -> None:
    assert RetryAfterError("", delay=timedelta(minutes=1)).delay == 60
    assert RetryAfterError("", delay=-5).delay == 0
    moment = datetime.now(UTC) + timedelta(hours=1)
    assert 3500 < RetryAfterError("", delay=moment).delay <= 3600


def test_signals_are_not_exceptions() -> None:
    assert not issubclass(errors.SuspendSignal, Exception)
    assert not issubclass(errors.CancelSignal, Exception)
