"""One request of the engine to the app, and what comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from inngest._internal import net

__all__ = ["PLAIN", "Call", "Lost", "Reply", "send"]

PLAIN = "step"
"""The ``stepId`` of a call that is not about one planned step."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What the engine asks of the app.

    Attributes:
        run_id: The run.
        function: Its function's full id, ``app-function``.
        step: ``"step"``, or the hash of the one step to run.
        attempt: From 0.
        max_attempts: How many there may be.
        planning: ``disable_immediate_execution``: steps found are to be planned, not run.
        version: The ``version`` of the request.
        events: What started the run.
        steps: The memos, by hash.
        stack: The hashes in the order they were settled.
        current: How many of them counted when the call was planned.
        use_api: The steps are too large to send; the app must fetch them.
    """

    run_id: str
    function: str
    step: str = PLAIN
    attempt: int = 0
    max_attempts: int
    planning: bool = False
    version: int = 2
    events: list[dict[str, Any]]
    steps: dict[str, Any]
    stack: list[str]
    current: int
    use_api: bool = False

    def again(self, **changes: Any) -> Call:
        """The same call, changed."""
        return replace(self, **changes)

    def body(self) -> dict[str, Any]:
        """The request's body."""
        return {
            "ctx": {
                "attempt": self.attempt,
                "disable_immediate_execution": self.planning,
                "env": "",
                "fn_id": self.function,
                "generation_id": 1,
                "job_id": "job",
                "max_attempts": self.max_attempts,
                "qi_id": "qi",
                "request_id": "request",
                "run_id": self.run_id,
                "stack": {"stack": self.stack, "current": self.current},
                "step_id": "step",
                "use_api": self.use_api,
            },
            "defers": {},
            "event": self.events[0],
            "events": self.events,
            "steps": {} if self.use_api else {key: self.steps[key] for key in sorted(self.steps)},
            "use_api": self.use_api,
            "version": self.version,
        }


class Lost(Exception):  # noqa: N818  # what happened to the answer
    """No answer came back: the app is gone, or the connection broke."""


@dataclass(frozen=True)
class Reply:
    """What the app answered.

    Attributes:
        status: The HTTP status.
        headers: Its headers, in lower case.
        body: The JSON, or the text where it is none.
        is_json: Whether it was JSON.
    """

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: Any = None
    is_json: bool = True

    @property
    def handled(self) -> bool:
        """Whether the SDK answered, and not a proxy before it."""
        return "x-inngest-sdk-handled" in self.headers

    @property
    def no_retry(self) -> bool:
        """Whether the app asks not to be called again about this."""
        return self.headers.get("x-inngest-no-retry") == "true"


async def send(http: httpx.AsyncClient, url: str, call: Call, signing_key: str | None = None) -> Reply:
    """Post a call to an app, signed if there is a key.

    Raises:
        Lost: If no answer came back.
    """
    headers = {
        "x-inngest-req-version": str(call.version),
        "x-inngest-step-id": call.step,
        "x-run-id": call.run_id,
        "connection": "close",
    }
    content = json.dumps(call.body()).encode()
    if signing_key is not None:
        headers["x-inngest-signature"] = str(net.sign_request(content, signing_key))
        headers["x-inngest-server-kind"] = "cloud"
    try:
        answer = await http.post(
            url, params={"fnId": call.function, "stepId": call.step}, content=content, headers=headers
        )
    except httpx.HTTPError as error:
        raise Lost(str(error)) from error
    try:
        body, is_json = answer.json(), True
    except ValueError:
        body, is_json = answer.text, False
    return Reply(answer.status_code, dict(answer.headers), body, is_json)
