"""Identifiers: what each kind may look like, and ids derived from (run id, step key) alone."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b

from durably.core.error_text import shown
from durably.core.secrets import MASK

__all__ = [
    "MAX_ID_LENGTH",
    "check_event_id",
    "check_event_name",
    "check_function_id",
    "check_names_no_secret",
    "check_patch_id",
    "check_run_id",
    "check_session_key",
    "check_step_id",
    "check_tags",
    "check_traceparent",
    "derive_id",
    "new_id",
]

MAX_ID_LENGTH = 200
"""The most characters of an id. In UTF-8 they fit into Temporal's 1000 bytes, and into a key of its databases."""

MAX_TAGS = 20
"""The most tags of a run."""

TRACEPARENT = re.compile("[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")
"""As the W3C's Trace Context has it."""

OWN_PREFIX = "durably."
"""What the ids of durably's own workflows begin with on Temporal, where they share one space with run ids."""


def new_id() -> str:
    """A fresh random id, 32 hexadecimal digits. Never called by durable code."""
    return uuid.uuid4().hex


def step_id_of(key: str) -> str:
    """Return the step id that the caller gave: the key without its branch and number."""
    return key.rpartition("/")[2].partition(":")[0]


def derive_id(kind: str, run_id: str, key: str) -> str:
    """The id of what a step makes: the same on every attempt and after every crash.

    Args:
        kind: What is named: ``"child"``, ``"event"``, ``"effect"``, ``"run"``.
        run_id: The run, or the event, that causes it.
        key: The step key within it.

    Returns:
        32 hexadecimal digits.
    """
    return blake2b(f"{kind}\0{run_id}\0{key}".encode(), digest_size=16).hexdigest()


def check_step_id(step_id: str) -> None:
    """Refuse a step id that is not 1 to 200 printable characters, or that could be mistaken for a generated key.

    Raises:
        TypeError: If it is not a text.
        ValueError: If it is empty, longer than 200 characters, begins or ends with a space, or holds ``/``, ``:`` or a
            character that cannot be printed.
    """
    _check(step_id, "a step id", without="/:", example="'save-answer' (a repeated id is numbered for you)")


def check_function_id(function_id: str) -> None:
    """Refuse a function id by the rule of `check_step_id`."""
    _check(function_id, "a function id", without="/:", example="'charge-order'")


def check_patch_id(patch_id: str) -> None:
    """Refuse a patch id that is not 1 to 200 printable characters. Raises what `check_run_id` raises."""
    _check(patch_id, "a patch id", example="'rename-refund'")


def check_run_id(run_id: str) -> None:
    """Refuse a run id that is not 1 to 200 printable characters, or that begins with ``durably.``.

    Raises:
        TypeError: If it is not a text.
        ValueError: If it breaks the rule.
    """
    _check(run_id, "a run id", example="'order-7'")
    if run_id.startswith(OWN_PREFIX):
        raise ValueError(f"{shown(run_id)} is not a run id: durably itself uses ids that begin with {OWN_PREFIX!r}")


def check_event_name(name: str) -> None:
    """Refuse an event name that is not 1 to 200 printable characters. Raises what `check_run_id` raises."""
    _check(name, "an event name", example="'order/paid'")


def check_event_id(event_id: str) -> None:
    """Refuse an event id that is not 1 to 200 printable characters. Raises what `check_run_id` raises."""
    _check(event_id, "an event id", example="'order-7-paid'")


def check_session_key(session_key: str) -> None:
    """Refuse a session key that is not 1 to 200 printable characters, or holds what stands for a registered secret.

    Raises:
        TypeError: If it is not a text.
        ValueError: If it breaks the rule.
    """
    _check(session_key, "a session key", example="'customer-7'")
    if MASK in session_key:
        # All secrets are masked by one text: what two customers said would be one conversation.
        raise ValueError(f"{shown(session_key)} is not a session key: a registered secret in it was masked")


def check_names_no_secret(name: str, what: str, redact: Callable[[str], str]) -> None:
    """Refuse a name with a registered secret in it: names are compared and shown, so they cannot be masked.

    Args:
        name: The name.
        what: What it names. The error begins with it.
        redact: Masks secrets in a text.

    Raises:
        ValueError: If there is one.
    """
    if redact(name) != name:
        raise ValueError(f"{what} contains a registered secret, and would be written as it is: use another one")


def check_traceparent(traceparent: object) -> None:
    """Refuse what is no place in a trace.

    Raises:
        TypeError: If it is not a text.
        ValueError: If it has not the form that the W3C's Trace Context gives it.
    """
    if not isinstance(traceparent, str):
        raise TypeError(f"a traceparent is a text, not {shown(traceparent)}")
    if not TRACEPARENT.fullmatch(traceparent):
        example = "'00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'"
        raise ValueError(f"{shown(traceparent)} is not a traceparent, such as {example}")


def check_tags(tags: Iterable[str]) -> tuple[str, ...]:
    """The tags of a run, each once and in order; refuse what is none.

    Args:
        tags: At most 20 texts such as ``"tenant:7"``, each 1 to 200 printable characters.

    Raises:
        TypeError: If it is no list, or a tag is not a text.
        ValueError: If there are too many, or one breaks the rule.
    """
    if isinstance(tags, str):
        raise TypeError(f"tags are a list of texts, such as ['tenant:7'], not the text {shown(tags)}")
    if isinstance(tags, Mapping) or not isinstance(tags, Iterable):
        raise TypeError(f"tags are a list of texts, such as ['tenant:7'], not {shown(tags)}")
    given = list(tags)
    for tag in given:
        _check(tag, "a tag", example="'tenant:7'")
    if len(set(given)) > MAX_TAGS:
        raise ValueError(f"a run has at most {MAX_TAGS} tags, not {len(set(given))}")
    return tuple(sorted(set(given)))


def _check(value: str, what: str, *, example: str, without: str = "") -> None:
    if not isinstance(value, str):
        raise TypeError(f"{what} is a text, such as {example}, not {shown(value)}")
    # Control characters, NUL and lone surrogates are not printable: some storages cut a text there, others refuse it.
    fits = 0 < len(value) <= MAX_ID_LENGTH and value.isprintable() and value.strip() == value
    if not fits or any(each in value for each in without):
        forbidden = "".join(f" and without {each!r}" for each in without)
        raise ValueError(
            f"{shown(value)} is not {what}: use 1 to {MAX_ID_LENGTH} printable characters, without a space at either "
            f"end{forbidden}, such as {example}"
        )
