"""What this backend needs of the SDK beyond its public functions, in one place.

Four things: the outputs of steps by hash and the order they ended in, so that changed code is noticed; step ids of
ours, so that no two steps share one, under the names that Inngest's pages show; an answer about a step that the code no
longer asks for; and requests to the server under the client's keys.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import httpx
import inngest
from inngest._internal import net, server_lib, step_lib, transforms

from durably.core.errors import EngineUnavailableError

__all__ = ["RawIdStep", "Request", "ResponseInterrupt", "ServerClient", "SkipInterrupt", "race", "shown_name"]

GATEWAY = (502, 503, 504)
"""What stands before a server answers so for one that does not."""

NO_RESPONSE = "never received response"
"""What the SDK says when none of its tries to send events came through; it keeps no cause."""

ResponseInterrupt = step_lib.ResponseInterrupt
SkipInterrupt = step_lib.SkipInterrupt


def shown_name(step_id: str) -> str:
    """The name of a step on Inngest's pages: its key without branch and numbers."""
    return step_id.rpartition("/")[2].partition("~")[0].partition(":")[0]


class RawIdStep(inngest.Step):
    """Steps whose ids are used as they are, never numbered by the SDK, and shown by their plain names."""

    @classmethod
    def of(cls, step: inngest.Step) -> RawIdStep:
        """The same steps with our ids."""
        return cls(step._client, step._execution, step._middleware, step._step_id_counter, step._target_hashed_id)

    def _parse_step_id(self, step_id: str) -> step_lib.base.ParsedStepID:
        # The SDK numbers a repeated id in the order in which it is discovered, across branches: that swaps the
        # outputs of two branches which use one id (seen on a server). Our keys are unique already.
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
        group: Runs steps in parallel.
        attempt: How often Inngest made this request before.
        settled: The hashes of the steps that have ended, in the order of their ends.
        large: Whether the outputs did not fit into the request and were fetched.
    """

    def __init__(self, ctx: inngest.Context) -> None:
        execution: Any = ctx.step._execution
        self.target: str | None = ctx.step._target_hashed_id
        self.step = RawIdStep.of(ctx.step)
        self.group = ctx.group
        self.attempt = ctx.attempt
        # Taken now: the SDK drops each output when it is asked for.
        self._outputs: dict[str, Any] = dict(execution._memos._memos)
        named = [step for step in execution._request.ctx.stack.stack or () if step in self._outputs]
        # A step that the stack does not name comes last.
        self.settled: list[str] = [*named, *(self._outputs.keys() - set(named))]
        self.large: bool = bool(execution._request.use_api)

    def outputs(self, start: int) -> Iterator[Any]:
        """The outputs of the settled steps, in their order, from a place on."""
        return (self._outputs[step].data for step in self.settled[start:])

    def has_settled(self, step_id: str) -> bool:
        """Whether a step of this id has ended."""
        return transforms.hash_step_id(step_id) in self._outputs

    def is_target(self, step_id: str) -> bool:
        """Whether this step is the one to run."""
        return self.target == transforms.hash_step_id(step_id)

    def is_new(self, step_id: str) -> bool:
        """Whether this step has not ended and is not the one to run."""
        hashed = transforms.hash_step_id(step_id)
        return hashed != self.target and hashed not in self._outputs

    def skips(self, step_id: str) -> bool:
        """Whether this step has not ended, and another one is the one to run."""
        return self.target is not None and self.is_new(step_id)

    def size(self) -> int:
        """About how many bytes the outputs of the settled steps take."""
        return sum(len(json.dumps(output.data)) for output in self._outputs.values())

    def settle_target(self, name: str, output: Any) -> NoReturn:
        """Answer that the step to run gave this output, without running anything."""
        info = step_lib.StepInfo(
            display_name=name,
            id=self.target or "",
            name=name,
            op=server_lib.Opcode.STEP_RUN,
            userland=step_lib.base.StepUserlandInfo(id=name, index=None),
        )
        raise ResponseInterrupt(step_lib.StepResponse(output=output, step=info))


def race(interrupt: ResponseInterrupt) -> None:
    """Let the planned branches go on alone, each as soon as its step has ended."""
    for response in interrupt.responses:
        response.step.set_parallel_mode(server_lib.ParallelMode.RACE)


class ServerClient:
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
        """Hand over events.

        Args:
            events: The events.
            seed: The header that fixes the ids which the server gives them, or ``None`` for random ones.

        Returns:
            The server's ids of them.

        Raises:
            EngineUnavailableError: If it does not answer.
        """
        with self._reaching():
            return await self._send(events, seed)

    async def _send(self, events: list[inngest.Event], seed: str | None) -> list[str]:
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

    async def request(self, method: str, path: str, body: Any = None) -> Any:
        """What the server's API answers, as JSON data.

        Args:
            method: The HTTP method.
            path: Below the server's address.
            body: JSON data to send along.

        Raises:
            LookupError: If the server does not have it.
            httpx.HTTPStatusError: If it refuses.
            EngineUnavailableError: If it does not answer.
        """
        with self._reaching():
            return await self._request(method, path, body)

    async def _request(self, method: str, path: str, body: Any) -> Any:
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

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            for cause in _causes(error):
                if isinstance(cause, httpx.TransportError) or NO_RESPONSE in str(cause):
                    raise self._unavailable(f"{type(cause).__name__}: {cause}") from error
                if isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code in GATEWAY:
                    raise self._unavailable(str(cause)) from error
            raise

    def _unavailable(self, reason: str) -> EngineUnavailableError:
        return EngineUnavailableError(server=self._client.api_origin, reason=reason)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An error, and what it came from: the SDK wraps what its HTTP client raises in errors of several kinds."""
    cause: BaseException | None = error
    while cause is not None:
        yield cause
        cause = cause.__cause__ or cause.__context__
