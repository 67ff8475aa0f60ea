"""What this backend needs of the SDK beyond its public functions, in one place.

Three things: the memos by hash and the order they were made in, so that changed code is noticed; step ids of ours, so
that no two steps share one, under the names that Inngest's pages show; and an answer about a step that the code no
longer asks for.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NoReturn

import inngest
from inngest._internal import net, server_lib, step_lib, transforms

__all__ = ["FAN_OUT", "NamedStep", "Request", "ResponseInterrupt", "SkipInterrupt", "Wire", "shown_name"]

ResponseInterrupt = step_lib.ResponseInterrupt
SkipInterrupt = step_lib.SkipInterrupt

FAN_OUT = server_lib.ParallelMode.RACE
"""Branches go on alone, each as soon as its step has ended."""


def shown_name(step_id: str) -> str:
    """The name of a step on Inngest's pages: its key without branch and numbers."""
    return step_id.rpartition("/")[2].partition("~")[0].partition(":")[0]


class NamedStep(inngest.Step):
    """Steps whose ids are used as they are, never numbered by the SDK, and shown by their plain names."""

    @classmethod
    def of(cls, step: inngest.Step) -> NamedStep:
        """The same steps with our ids."""
        return cls(step._client, step._execution, step._middleware, step._step_id_counter, step._target_hashed_id)

    def _parse_step_id(self, step_id: str) -> step_lib.base.ParsedStepID:
        return step_lib.base.ParsedStepID(
            hashed=transforms.hash_step_id(step_id), user_facing=shown_name(step_id), index=None
        )


class Request:
    """One request of Inngest, below the SDK's context.

    Args:
        ctx: The context.

    Attributes:
        target: The hash of the one step to run, or ``None``.
        step: The steps, with ids of ours.
        stack: The hashes of the settled steps.
    """

    def __init__(self, ctx: inngest.Context) -> None:
        execution: Any = ctx.step._execution
        self.target: str | None = ctx.step._target_hashed_id
        self.step = NamedStep.of(ctx.step)
        self.group = ctx.group
        self.attempt = ctx.attempt
        # Taken now: the SDK drops each memo when it is asked for.
        self._memos: dict[str, Any] = dict(execution._memos._memos)
        settled = [step for step in execution._request.ctx.stack.stack or () if step in self._memos]
        # In the order they were settled; one that the stack does not name comes last.
        self.stack: list[str] = [*settled, *(self._memos.keys() - set(settled))]
        self.large: bool = bool(execution._request.use_api)

    def memos(self, start: int) -> Iterator[Any]:
        """The data of the settled steps, in the order of the stack, from a place on."""
        return (self._memos[step].data for step in self.stack[start:])

    def has(self, step_id: str) -> bool:
        """Whether a step of this id is settled."""
        return transforms.hash_step_id(step_id) in self._memos

    def is_target(self, step_id: str) -> bool:
        """Whether this step is the one to run."""
        return self.target == transforms.hash_step_id(step_id)

    def size(self) -> int:
        """About how many bytes the settled steps take."""
        return sum(len(json.dumps(memo.data)) for memo in self._memos.values())

    def settle_target(self, name: str, data: Any) -> NoReturn:
        """Answer that the step to run gave this, without running anything."""
        info = step_lib.StepInfo(
            display_name=name,
            id=self.target or "",
            name=name,
            op=server_lib.Opcode.STEP_RUN,
            userland=step_lib.base.StepUserlandInfo(id=name, index=None),
        )
        raise ResponseInterrupt(step_lib.StepResponse(output=data, step=info))


class Wire:
    """Requests to the Inngest server, by the SDK's own HTTP client and under its keys.

    Args:
        client: The client.
    """

    def __init__(self, client: inngest.Inngest) -> None:
        self._client = client
        self._http: Any = client._http_client

    @property
    def production(self) -> bool:
        """Whether the server wants keys: Inngest Cloud, or one of one's own that is not a dev server."""
        return self._client.is_production

    async def send(self, events: list[inngest.Event], seed: str | None = None) -> list[str]:
        """Hand over events; the server's ids of them. With a seed, those are always the same."""
        if seed is None:
            return await self._client.send(events)
        request = self._client._build_send_request(events)
        if isinstance(request, Exception):
            raise request
        request.headers[server_lib.HeaderKey.EVENT_ID_SEED.value] = seed
        answer = await net.fetch_with_thready_safety(self._http._http_client, self._http._http_client_sync, request)
        answer.raise_for_status()
        ids: list[str] = answer.json()["ids"]
        return ids

    async def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A question to the server's API: what it answers as JSON data. Raises LookupError for what is not there."""
        request = self._http.build_httpx_request(method, self._client.api_origin.rstrip("/") + path, json=body)
        answer: Any = await net.fetch_with_auth_fallback(
            self._http._http_client,
            self._http._http_client_sync,
            request,
            signing_key=self._client.signing_key,
            signing_key_fallback=self._client.signing_key_fallback,
        )
        if isinstance(answer, Exception):
            raise answer
        if answer.status_code == 404:
            raise LookupError(f"{path} is not there")
        answer.raise_for_status()
        return answer.json() if answer.content else None
