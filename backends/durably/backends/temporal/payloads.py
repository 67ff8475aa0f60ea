"""Payloads: the JSON text that travels to the server and back, and the metadata beside it.

Values are written by the library's own codecs and handed over as finished JSON, so they look the same under every
data converter a client may bring; its payload codec (encryption, compression) still sees every byte.

Every name in this file stands in histories: a run that began under an older version of the library is read with it.
"""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import timedelta
from typing import Any

from temporalio.api.common.v1 import Payload
from temporalio.common import RawValue
from temporalio.exceptions import ApplicationError

from durably.core import Event
from durably.core.error_text import error_text
from durably.core.error_trace import shortened
from durably.core.errors import PayloadTooLargeError, error_to_json
from durably.core.history import StepRecord
from durably.core.secrets import Redactor

__all__ = [
    "ARGUMENT",
    "ATTEMPT",
    "CLAIM",
    "DELIVER",
    "EXPECT",
    "FIND",
    "GIVEN_BACK",
    "GIVEN_UP",
    "INPUT",
    "LINE",
    "LOCAL_ACTIVITY",
    "MAX_PAYLOAD_BYTES",
    "NO_STEP",
    "OFFER",
    "PATCH",
    "PATCHED",
    "PAUSE",
    "RECALL",
    "REFERENCE",
    "RETRY",
    "SEND",
    "STATUS",
    "STUCK",
    "SUMMARY",
    "WAIT",
    "WAIT_TOGETHER",
    "ActivityRequest",
    "check_size",
    "failure",
    "metadata_of",
    "pack",
    "payload",
    "text_of",
    "trigger_arguments",
    "unpack",
]

MAX_PAYLOAD_BYTES = 2 * 2**20 - 3 * 2**16
"""Temporal refuses a payload of 2 MiB; some room is left for what a payload codec adds, and :func:`pack`."""

PACKED = 1_500_000
"""Records are packed together up to this many characters."""

INPUT = "durably-input"
"""Metadata of a step's value: the input it was made from, so that a replay can compare."""

REFERENCE = "durably-reference"
"""Metadata of an argument: the digest of a large value, which the activity asks the workflow for."""

ATTEMPT = "durably-attempt"
"""Metadata of a closure's value: the attempt it is from, if not the first."""

STATUS = "durably-status"
"""Metadata of a function's value: how the run ended, where that is not by completing."""

ARGUMENT = "durably-argument"
"""The query by which an activity asks its workflow for a large argument."""

LINE = "durably-line"
"""The query that asks a singleton lock which runs wait for the end of its holder."""

RETRY = "retry: "
"""How the summary of a timer begins that delays the next attempt of a function. No step key begins like that."""

DELIVER = "durably-event"
"""The signal that brings an event to a run that waits for it, with the key of the step that waits."""

OFFER = "durably-offer"
"""The signal that brings an event to a run that may wait for it: the answer to one of its questions."""

GIVEN_BACK = "WorkerShutdown"
"""The type of the failure of an activity that another worker takes over, and whose body has not failed."""

GIVEN_UP = "durably-given-up"
"""In the memo of a run that is failed for its crashes: the error. Its last task would not know of them."""

STUCK = "durably-stuck"
"""The signal that leaves in a run's history what of the code did not fit it."""

PATCH = "core_patch"
"""The name of the marker that Temporal's workers write for a patch."""

PATCHED = "patched/"
"""How Temporal's id of a patch begins that the code of a function asked for."""

LOCAL_ACTIVITY = "core_local_activity"
"""The name of the marker that Temporal's workers write for a local activity."""

SUMMARY = 200
"""Summaries are cut to this many characters; Temporal allows 400 bytes."""

KEPT = 2_400
"""Bytes of texts in the failure of an attempt that is not the last: Temporal drops the details of one over 4 kB."""

NO_STEP = "durably:"
"""How the id of an activity begins that is no step of the run's code."""

FIND = "durably.find"
SEND = "durably.send"
WAIT = "durably.wait"
WAIT_TOGETHER = "durably.wait-together"
EXPECT = "durably.expect"
CLAIM = "durably.claim"
RECALL = "durably.recall"
PAUSE = "durably.pause"
"""The library's own activities, in the place of a body's name."""


def payload(text: str, **metadata: str) -> RawValue:
    """JSON text as a payload."""
    named = {name: value.encode() for name, value in metadata.items()}
    return RawValue(Payload(metadata={"encoding": b"json/plain", **named}, data=text.encode()))


def trigger_arguments(event: Event, **origin: Any) -> list[RawValue]:
    """What the workflow of a run is started with by an event: the event, and what more is said of its start."""
    return [payload(event.model_dump_json()), payload(json.dumps(origin))]


def text_of(value: RawValue) -> str:
    """The JSON text of a payload."""
    return value.payload.data.decode()


def metadata_of(value: RawValue, name: str) -> str | None:
    """A field of a payload's metadata, or ``None``."""
    found = value.payload.metadata.get(name)
    return None if found is None else found.decode()


@dataclass(frozen=True, slots=True, kw_only=True)
class ActivityRequest:
    """The first argument of every activity: what it runs, and by which rules. The body's own arguments follow.

    Attributes:
        body: The body's name, or the name of one of the library's own activities; empty for a closure.
        input: What a record keeps of the arguments.
        retries: Further attempts, or ``None`` for the function's.
        timeout: Seconds one attempt may take, or ``None``.
        once: Whether it must never run twice.
        failures: How many attempts of a closure have failed.
        lost: How many of its attempts may have been cut off by a crash.
        earlier: How many attempts there were before its run was retried.
        crashes: How many of them were, as far as Temporal tells a crash from a failed task.
        crash_limit: How many crashes may cut off the body; ``None``, as older versions asked: any number.
        cause: What began its run, as the fields of a ``Cause``, where observers follow that; else empty.
    """

    body: str
    input: str = ""
    retries: int | None = None
    timeout: float | None = None
    once: bool = False
    failures: int = 0
    lost: int = 0
    earlier: int = 0
    crashes: int = 0
    crash_limit: int | None = None
    cause: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_system(self) -> bool:
        """Whether it runs one of the library's own activities, which is no step of the run's code."""
        return self.body in (SEND, WAIT, WAIT_TOGETHER, EXPECT, CLAIM, RECALL, PAUSE, FIND)

    def to_payload(self) -> RawValue:
        """The request as a payload; fields that hold their default are left out."""
        data = {name: value for name, default in _DEFAULTS.items() if (value := getattr(self, name)) != default}
        return payload(json.dumps(data, ensure_ascii=False, separators=(",", ":")))

    @classmethod
    def from_payload(cls, value: RawValue) -> ActivityRequest:
        """Read what :meth:`to_payload` wrote."""
        return cls(**json.loads(text_of(value)))


_DEFAULTS = {
    **{each.name: getattr(ActivityRequest(body=""), each.name) for each in fields(ActivityRequest)},
    "body": None,  # it has none, and is never left out
}


def failure(
    error: BaseException,
    redactor: Redactor,
    *details: Any,
    retriable: bool = False,
    delay: timedelta | None = None,
    kind: type[ApplicationError] = ApplicationError,
) -> ApplicationError:
    """An error as Temporal keeps it: its class name as the type, its JSON form as the first detail.

    Args:
        error: The error.
        redactor: Masks secrets in it.
        details: Further details: the input of a step, and before it the delay of a closure that is to be retried.
        retriable: Whether Temporal makes another attempt.
        delay: When Temporal makes it.
        kind: The class of the failure.
    """
    data = error_to_json(error, redactor.text)
    message = error_text(error, redactor.text)
    if retriable:
        data, message = _short(data), shortened(message, KEPT // 4)
    return kind(
        message,
        data,
        *details,
        type=data["type"],
        non_retryable=not retriable,
        next_retry_delay=delay,
    )


def _short(data: dict[str, Any]) -> dict[str, Any]:
    return {
        name: _short_text(value, KEPT // 2 if name == "traceback" else KEPT // 4) if isinstance(value, str) else value
        for name, value in data.items()
    }


def _short_text(text: str, limit: int) -> str:
    # The client's converter may write JSON in ASCII, which takes up to three times as many bytes.
    return shortened(text, limit * len(text.encode()) // len(json.dumps(text)))


def check_size(text: str, *, step: str, limit: int) -> None:
    """Refuse what Temporal would refuse, naming the step.

    Raises:
        PayloadTooLargeError: If the text has more than ``limit`` bytes.
    """
    size = len(text.encode())
    if size > limit:
        raise PayloadTooLargeError(step=step, size=size, limit=limit)


def pack(records: Sequence[StepRecord]) -> tuple[str, int]:
    """As many records as one payload takes, at least one, compressed; and how many they are.

    Compressed, they leave a fresh history most of its room, and text in quotes does not grow with every level of JSON.
    """
    lines: list[str] = []
    room = PACKED
    for record in records:
        line = record.to_json()
        room -= len(line)
        if lines and room < 0:
            break
        lines.append(line)
    return b64encode(zlib.compress("\n".join(lines).encode())).decode(), len(lines)


def unpack(packed: str) -> list[StepRecord]:
    """What :func:`pack` packed."""
    text = zlib.decompress(b64decode(packed)).decode()
    return [StepRecord.from_json(line) for line in text.split("\n") if line]
