"""Our functions as the SDK's: triggers, cancellation, and the options that Inngest applies itself."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from typing import Any

import inngest

from durably.backends.inngest.apps import start_event
from durably.backends.inngest.driver import Driver
from durably.backends.inngest.events import CALL_ABANDONED, FUNCTION_CANCELLED, FUNCTION_FAILED, path_expression
from durably.core import Function
from durably.core.durations import Duration
from durably.core.errors import UnsupportedFeatureError
from durably.core.flow import Cron, period_seconds
from durably.core.functions import FailedRun

__all__ = ["REQUEST_RETRIES", "make_function"]

REQUEST_RETRIES = 20
"""How often Inngest asks again when no answer comes. Our own retries are counted in the records instead."""


def make_function(client: inngest.Inngest, function: Function[Any, Any], driver: Driver) -> inngest.Function[Any]:
    """Make the SDK's function of one of ours.

    Raises:
        UnsupportedFeatureError: If the SDK does not take one of the function's options.
    """
    if function.crash_limit > REQUEST_RETRIES - 2:
        raise UnsupportedFeatureError(
            backend="inngest",
            feature=f"crash_limit={function.crash_limit} of function {function.id!r}",
            reason=f"it ends a run after {REQUEST_RETRIES} requests without an answer: {REQUEST_RETRIES - 2} at most",
        )
    made: inngest.Function[Any] = client.create_function(
        fn_id=function.id,
        name=function.id,
        trigger=_triggers(client, function),
        retries=REQUEST_RETRIES,
        singleton=_singleton(function),
        cancel=_cancel(),
        **_flow(function),
    )(partial(driver.answer, function))
    return made


def _triggers(client: inngest.Inngest, function: Function[Any, Any]) -> list[Any]:
    triggers: list[Any] = [inngest.TriggerEvent(event=name) for name in function.triggers]
    if function.cron is not None:
        triggers.append(inngest.TriggerCron(cron=_cron_text(function.cron)))
    if function.input.type is FailedRun and function.id.endswith("-failure"):
        failed = f"event.data.function_id == '{client.app_id}-{function.id.removesuffix('-failure')}'"
        triggers.append(inngest.TriggerEvent(event=FUNCTION_FAILED, expression=failed))
    return [inngest.TriggerEvent(event=start_event(client.app_id, function.id)), *triggers]


def _cancel() -> list[inngest.Cancel]:
    """When Inngest ends a run by itself: a run that waits for it was cancelled, or gave up waiting."""
    # Inngest names a cancelled run by its own id, and we an abandoned child by ours, so `line` holds both of each run.
    return [
        inngest.Cancel(event=FUNCTION_CANCELLED, if_exp="async.data.run_id in event.data._durably.line"),
        inngest.Cancel(event=CALL_ABANDONED, if_exp="async.data.run in event.data._durably.line"),
    ]


def _singleton(function: Function[Any, Any]) -> inngest.Singleton | None:
    rule = function.singleton
    if rule is None or rule.mode == "queue":  # which the backend has refused
        return None
    return inngest.Singleton(key=_key(rule.key), mode=rule.mode)


def _cron_text(cron: Cron) -> str:
    return cron.schedule if cron.timezone == "UTC" else f"TZ={cron.timezone} {cron.schedule}"


def _span(period: Duration, option: str, function: Function[Any, Any]) -> timedelta:
    """A period, in the whole seconds that Inngest counts in."""
    seconds = period_seconds(period)
    if seconds < 1 or seconds % 1:
        raise UnsupportedFeatureError(
            backend="inngest",
            feature=f"a period of {seconds:g} seconds in {option}= of function {function.id!r}",
            reason="Inngest counts in whole seconds, at least one; write such a period",
        )
    return timedelta(seconds=seconds)


def _key(path: str) -> str | None:
    return path_expression("event", path) if path else None


def _priority(run: str) -> str:
    """A number or an expression as it is, and a path as an expression."""
    plain = not run.startswith("event.") and all(part.isidentifier() for part in run.split("."))
    return path_expression("event", run) if plain else run


def _flow(function: Function[Any, Any]) -> dict[str, Any]:
    """The options of flow control, in the SDK's words."""
    made: dict[str, Any] = {}
    if function.concurrency:
        made["concurrency"] = [
            inngest.Concurrency(limit=each.limit, key=_key(each.key), scope=each.scope) for each in function.concurrency
        ]
    if (rule := function.debounce) is not None:
        made["debounce"] = inngest.Debounce(
            period=_span(rule.period, "debounce", function),
            key=_key(rule.key),
            timeout=None if rule.timeout is None else _span(rule.timeout, "debounce", function),
        )
    if (limit := function.throttle) is not None:
        made["throttle"] = inngest.Throttle(
            limit=limit.limit,
            period=_span(limit.period, "throttle", function),
            burst=limit.burst,
            key=_key(limit.key),
        )
    if (rate := function.rate_limit) is not None:
        made["rate_limit"] = inngest.RateLimit(
            limit=rate.limit, period=_span(rate.period, "rate_limit", function), key=_key(rate.key)
        )
    if function.priority is not None:
        made["priority"] = inngest.Priority(run=_priority(function.priority.run))
    if (batch := function.batch) is not None:
        made["batch_events"] = inngest.Batch(
            max_size=batch.max_size, timeout=_span(batch.timeout, "batch", function), key=_key(batch.key)
        )
    if function.idempotency:
        made["idempotency"] = _key(function.idempotency)
    try:
        for option in made.values():
            for each in option if isinstance(option, list) else [option]:
                if not isinstance(each, str):
                    each.to_dict()  # the SDK looks at durations only when it registers them
    except Exception as error:
        raise UnsupportedFeatureError(
            backend="inngest", feature=f"an option of function {function.id!r}", reason=str(error)
        ) from None
    return made
