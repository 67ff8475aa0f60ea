"""Answers that come later, in the background and in batches: through the real SDKs, across crashes, to every end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anthropic
import openai
import pytest

from durably.backends import MemoryBackend, SQLiteBackend
from durably.core import Agent, FallbackModel, InvokeError, ModelError, Trace, current_step, tool, user
from durably.core.compaction import Compaction
from durably.core.errors import AnswerFailedError
from durably.core.messages import RefusalPart, TextPart
from durably.core.model import DeferringModel, Model, ModelRequest, ModelResponse, Usage
from durably.core.run_view import RunStatus
from durably.core.submission import Submission
from durably.providers import Key
from durably.providers.anthropic import AnthropicModel
from durably.providers.litellm import LiteLLMModel
from durably.providers.openai import OpenAIModel
from durably.providers.prices import price
from durably.testing import ScriptedModel, call, crash_matrix
from durably.testing.models.late.job import Job
from durably.testing.models.llm_server import Fault, LLMServer
from durably.testing.models.scripted import Reply
from durably.testing.models.wire.http import HTTPRequest
from tests.providers.cases import question
from tests.providers.subjects import ENV
from tests.providers.test_features import reply

pytestmark = pytest.mark.asyncio

KEY = Key(env=ENV)


@dataclass(frozen=True)
class Way:
    """One way to be answered later.

    Attributes:
        name: Names it.
        make: A model that talks to the server.
        submits: The path that takes a submission.
        options: The options that ask for it.
    """

    name: str
    make: Callable[[LLMServer], DeferringModel]
    submits: str
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.name


BACKGROUND = Way(
    "background",
    lambda server: OpenAIModel("gpt-5", key=KEY, base_url=server.openai_url, api="responses", prices="openai"),
    "/v1/responses",
    {"background": True},
)
MESSAGES = Way(
    "anthropic-batch",
    lambda server: AnthropicModel("claude-opus-4-6", key=KEY, base_url=server.url, batch=True),
    "/v1/messages/batches",
)
RESPONSES = Way(
    "responses-batch",
    lambda server: OpenAIModel(
        "gpt-5", key=KEY, base_url=server.openai_url, api="responses", batch=True, prices="openai"
    ),
    "/v1/batches",
)
CHAT = Way(
    "chat-batch",
    lambda server: OpenAIModel("gpt-5", key=KEY, base_url=server.openai_url, batch=True, prices="openai"),
    "/v1/batches",
)
WAYS = (BACKGROUND, MESSAGES, RESPONSES, CHAT)


@pytest.fixture(params=WAYS, ids=str)
def way(request: pytest.FixtureRequest) -> Way:
    found: Way = request.param
    return found


@tool
async def find(order: str) -> str:
    """Find an order."""
    return f"order {order} is on its way"


SCRIPT = call("find", order="7"), "It is on its way."


def shop(model: Model, way: Way, **options: Any) -> Agent:
    return Agent("shop", model=model, instructions="Be brief.", tools=[find], model_options=way.options, **options)


def submissions(received: Iterable[HTTPRequest], way: Way) -> list[HTTPRequest]:
    return [each for each in received if each.method == "POST" and each.path == way.submits]


# -- it is answered


async def test_a_run_waits_for_its_answers(way: Way) -> None:
    async with LLMServer(*SCRIPT) as server:
        agent = shop(way.make(server), way)
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "Where is order 7?")
            result = await run.result()
            history = await run.history()
    assert (result.text, result.iterations, result.tool_calls) == ("It is on its way.", 2, 1)
    assert [message.role for message in result.messages] == ["user", "assistant", "tool", "assistant"]
    assert result.usage == Usage(input_tokens=20, output_tokens=10)
    assert len(submissions(server.received, way)) == len(server.submitted) == 2
    asked = [record.step_id for record in history.steps() if record.step_id in ("think", "wait-answer", "fetch-answer")]
    assert asked == ["think", *["wait-answer", "fetch-answer"] * 3] * 2, "the third time it is there"
    [conversation] = Trace.of(history).conversations
    assert conversation.exact
    assert [entry.message.role for entry in conversation.entries if entry.message] == [
        message.role for message in result.messages
    ]


async def test_waits_grow_and_the_records_keep_them(way: Way) -> None:
    async with LLMServer("Done.", polls=9) as server:
        agent = shop(way.make(server), way)
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "?")
            await run.result()
            history = await run.history()
    began = [each for each in history if each.step_id == "wait-answer" and each.status == "started"]
    waits = [round((each.due or 0) - each.at, 1) for each in began]
    assert len(waits) == 10
    assert waits == sorted(waits)
    assert waits[-1] == pytest.approx(30.0 if way is BACKGROUND else 600.0, abs=0.1), "and no longer"


async def test_half_the_price_in_a_batch(way: Way) -> None:
    usage = Usage(input_tokens=1000, output_tokens=100)
    async with LLMServer(reply(TextPart(text="ok"), usage=usage)) as server:
        model = way.make(server)
        agent = shop(model, way)
        async with MemoryBackend([agent]) as backend:
            result = await backend.invoke(agent, "?")
    provider, _, name = model.name.partition(":")
    at_once = price(usage, name, provider=provider)
    assert at_once is not None
    assert result.cost == pytest.approx(at_once if way is BACKGROUND else at_once / 2)


@pytest.mark.parametrize(
    ("said", "stop"),
    [
        (reply(TextPart(text="It is"), stop_reason="max_tokens"), "max_tokens"),
        (reply(RefusalPart(text="No."), stop_reason="refusal"), "refused"),
    ],
    ids=["cut", "refused"],
)
async def test_an_answer_that_is_none_is_named(way: Way, said: ModelResponse, stop: str) -> None:
    async with LLMServer(said) as server:
        agent = shop(way.make(server), way)
        async with MemoryBackend([agent]) as backend:
            assert (await backend.invoke(agent, "?")).stop_reason == stop


async def test_a_typed_answer(way: Way) -> None:
    async with LLMServer("never", '{"answer": [1, 2]}') as server:
        agent = Agent(
            "typed", model=way.make(server), instructions="", output_type=list[int], model_options=way.options
        )
        async with MemoryBackend([agent]) as backend:
            result = await backend.invoke(agent, "?")
    assert (result.output, result.iterations) == ([1, 2], 2)


async def test_streaming_agents_get_the_whole_answer(way: Way) -> None:
    async with LLMServer(*SCRIPT) as server:
        agent = shop(way.make(server), way, stream=True)
        async with MemoryBackend([agent]) as backend:
            assert (await backend.invoke(agent, "?")).text == "It is on its way."
    assert len(server.submitted) == 2


async def test_a_model_that_falls_back_asks_the_one_that_has_it(way: Way) -> None:
    async with LLMServer(*SCRIPT) as server, LLMServer("never", faults=lambda _: Fault.answer(400)) as broken:
        model = FallbackModel(way.make(broken), FallbackModel(way.make(server), ScriptedModel("never")))
        agent = shop(model, way)
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "?")
            assert (await run.result()).text == "It is on its way."
            records = (await run.history()).steps()
    first = next(each for each in records if each.step_id == "think")
    assert '"path":[1,0]' in (first.output or "").replace(" ", "")
    assert len(server.submitted) == 2


async def test_a_summary_comes_later_too() -> None:
    async with LLMServer(call("find", order="1"), call("find", order="2"), "Done.", "x") as server:
        script = ScriptedModel(call("find", order="1"), call("find", order="2"), "Done.")
        summarizer = MESSAGES.make(server)
        agent = Agent(
            "long",
            model=script,
            instructions="",
            tools=[find],
            compaction=Compaction(at_tokens=1, keep=1, model=FallbackModel(summarizer, script)),
        )
        server._model = ScriptedModel("They asked for orders.")
        server._late._ways[1]._answer = server._body
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "?")
            result = await run.result()
            history = await run.history()
    assert result.text == "Done."
    assert "fetch-summary" in [record.step_id for record in history]
    [conversation] = Trace.of(history).conversations
    assert conversation.exact
    assert [entry.summary for entry in conversation.entries if entry.summary]


# -- it is not answered


async def outcome(way: Way, *script: Reply, **options: Any) -> tuple[dict[str, Any], LLMServer]:
    async with LLMServer(*script) as server:
        agent = shop(way.make(server), way, **options)
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "?")
            with pytest.raises(InvokeError):
                await run.result()
            failed = next(each for each in (await run.history()).steps() if each.status == "failed")
    assert failed.error is not None
    return failed.error, server


def error(message: str = "down", **fields: Any) -> ModelError:
    return ModelError(message, provider="p", model="m", **fields)


async def test_a_failure_that_may_pass_is_submitted_again(way: Way) -> None:
    async with LLMServer(lambda request: _once(server)) as server:
        agent = shop(way.make(server), way)
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "?")
            assert (await run.result()).text == "Better."
            steps = (await run.history()).steps()
    assert len(server.submitted) == 2
    failed = [each for each in steps if each.status == "failed"]
    assert [each.step_id for each in failed] == ["fetch-answer"]
    assert (failed[0].error or {})["error_type"] == AnswerFailedError.__name__
    assert (failed[0].error or {})["attempts"] == 1, "to ask again would give the same"


def _once(server: LLMServer) -> Reply:
    return "Better." if server.submitted else error(status=500)


async def test_such_failures_use_the_attempts_up(way: Way) -> None:
    failed, server = await outcome(way, error(status=500), retries=2)
    assert failed["error_type"] == AnswerFailedError.__name__
    assert len(server.submitted) == 3


async def test_a_refused_request_is_final(way: Way) -> None:
    failed, server = await outcome(way, error(status=400))
    assert failed["error_type"] == "ModelError"
    assert len(server.submitted) == 1


async def test_an_answer_that_was_cancelled_or_has_expired_is_final(way: Way) -> None:
    for end in (Job.cancel, *([] if way is BACKGROUND else [Job.expire])):
        async with LLMServer("never") as server:
            model = way.make(server)
            [promised] = [await model.complete(question(user("?"), options=way.options))]
            assert promised.submitted is not None
            end(server.submitted[0])
            with pytest.raises(ModelError, match=r"cancel|expired") as raised:
                await model.fetch(promised.submitted, question())
        assert not raised.value.retriable
        assert not isinstance(raised.value, AnswerFailedError)


async def test_an_answer_that_nobody_knows_is_final(way: Way) -> None:
    async with LLMServer("never") as server:
        model = way.make(server)
        promised = await model.complete(question(user("?"), options=way.options))
        assert promised.submitted is not None
        server.submitted.clear()
        with pytest.raises(ModelError) as raised:
            await model.fetch(promised.submitted, question())
    assert (raised.value.status, raised.value.retriable) == (404, False)


async def test_asking_is_retried_and_submitting_is_not_repeated(way: Way) -> None:
    def fault(request: HTTPRequest) -> Fault | None:
        if request.method == "GET" and not any(each.method == "GET" for each in server.received[:-1]):
            return Fault.answer(503)
        return None

    async with LLMServer("Done.", faults=fault) as server:
        agent = shop(way.make(server), way)
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "?")
            assert (await run.result()).text == "Done."
            assert "retrying" in [each.status for each in await run.history() if each.step_id == "fetch-answer"]
    assert len(server.submitted) == 1


async def test_a_limit_of_time_cancels_it(way: Way) -> None:
    async with LLMServer("never", polls=1000) as server:
        agent = shop(way.make(server), way, model_timeout=300)
        async with MemoryBackend([agent]) as backend:
            run = await backend.start(agent, "?")
            with pytest.raises(InvokeError, match="model_timeout"):
                await run.result()
    assert [job.ended for job in server.submitted] == ["cancelled"]


# -- crashes


@dataclass
class Cell:
    """What one cell of a matrix has sent."""

    received: list[HTTPRequest] = field(default_factory=list)
    found: dict[str, str] = field(default_factory=dict)


class Unhurried:
    """A model whose answers are there the second time: by the step that asks, as a crash must not change the world."""

    def __init__(self, model: DeferringModel) -> None:
        self._model = model
        self.name = model.name

    async def complete(self, request: ModelRequest) -> ModelResponse:
        return await self._model.complete(request)

    async def fetch(self, submitted: Submission, request: ModelRequest) -> ModelResponse:
        response = await self._model.fetch(submitted, request)
        early = current_step().key in ("fetch-answer", "fetch-answer:2")
        return response.model_copy(update={"submitted": submitted}) if early else response

    async def give_up(self, submitted: Submission) -> None:
        await self._model.give_up(submitted)


CRASHED = [(BACKGROUND, "memory", 2), *((way, "memory", 1) for way in WAYS[1:]), (BACKGROUND, "sqlite", 1)]


@pytest.mark.parametrize(("way", "backend", "turns"), CRASHED, ids=str)
async def test_no_crash_submits_what_was_recorded_as_submitted(way: Way, backend: str, turns: int) -> None:
    cells: list[Cell] = []
    async with LLMServer(*SCRIPT[-turns:], polls=0) as server:

        def build() -> tuple[Agent, Cell]:
            cell = Cell()
            cells.append(cell)
            server.received = cell.received

            @tool
            async def find(order: str) -> str:
                """Find an order."""
                cell.found[current_step().idempotency_key] = order
                return f"order {order} is on its way"

            model = Unhurried(way.make(server))
            agent = Agent("shop", model=model, instructions="Be brief.", tools=[find], model_options=way.options)
            return agent, cell

        report = await crash_matrix(
            build, "Where is order 7?", backend=backend, state=lambda cell: sorted(cell.found.values())
        )
    assert report.ok, report
    used = [cell for cell in cells if cell.received]
    counts = [len(submissions(cell.received, way)) for cell in used]
    assert min(counts) == turns
    crashed = zip(report.cells, counts[-len(report.cells) :], strict=True)
    again = {cell.label for cell, count in crashed if count != turns}
    assert again == {"think/after_effect", "think:1/after_effect"} - ({"think:1/after_effect"} if turns == 1 else set())
    keys = {each.headers.get("idempotency-key") for each in submissions(used[0].received, way)}
    assert len(keys) == turns, "one for each step"


# -- cancelling


@asynccontextmanager
async def waiting(way: Way, make: Callable[[Agent], Any]) -> AsyncIterator[tuple[LLMServer, Any, Any]]:
    """A run that waits for an answer that does not come."""
    async with LLMServer("never", polls=10**9) as server:
        agent = shop(way.make(server), way)
        async with make(agent) as backend:
            run = await backend.start(agent, "?")
            while not server.submitted or "wait-answer" not in [each.step_id for each in await run.history()]:
                await _moment()
            yield server, backend, run


async def _moment() -> None:
    await asyncio.sleep(0.01)


@pytest.mark.parametrize("evict", ["never", "always"])
async def test_a_cancelled_run_cancels_its_answer(way: Way, evict: Any, tmp_path: Any) -> None:
    async with waiting(way, lambda agent: SQLiteBackend(tmp_path / "runs.db", [agent], evict=evict)) as (
        server,
        _,
        run,
    ):
        await run.cancel()
        while server.submitted[0].ended is None:
            await _moment()
    assert run.status is RunStatus.CANCELLED
    assert [job.ended for job in server.submitted] == ["cancelled"]


# -- who has none


async def test_others_refuse_it_by_name() -> None:
    async with LLMServer("never") as server:
        asked = question(user("?"), options={"background": True})
        chat = OpenAIModel("gpt-5", key=KEY, base_url=server.openai_url)
        stateless = OpenAIModel("gpt-5", key=KEY, base_url=server.openai_url, api="responses")
        both = OpenAIModel("gpt-5", key=KEY, base_url=server.openai_url, api="responses", batch=True)
        routed = LiteLLMModel("openai/gpt-5", key=KEY, base_url=server.openai_url)
        refused: list[tuple[Model, Any, str]] = [
            (chat, asked.options, "api='responses'"),
            (stateless, {"background": True, "store": False}, "store=False"),
            (both, asked.options, "batch=True"),
            (routed, asked.options, "OpenAIModel"),
        ]
        for model, options, why in refused:
            with pytest.raises(ModelError, match=why) as raised:
                await model.complete(question(user("?"), options=options))
            assert not raised.value.retriable
    assert not server.received
    with pytest.raises(TypeError, match="batch"):
        LiteLLMModel("openai/gpt-5", batch=True)  # type: ignore[call-arg]


# -- the server is as strict as the real ones


async def test_the_server_refuses_what_the_real_ones_refuse() -> None:
    async with LLMServer("never") as server:
        openai_client = openai.AsyncOpenAI(api_key="k", base_url=server.openai_url, max_retries=0)
        claude = anthropic.AsyncAnthropic(api_key="k", base_url=server.url, max_retries=0)
        async with openai_client, claude:
            with pytest.raises(openai.BadRequestError, match="store"):
                await openai_client.responses.create(model="gpt-5", input=[MESSAGE], background=True, store=False)
            with pytest.raises(openai.NotFoundError):
                await openai_client.responses.retrieve("resp_1")
            with pytest.raises(openai.BadRequestError, match="purpose"):
                await openai_client.files.create(file=b"{}", purpose="assistants")
            with pytest.raises(openai.NotFoundError):
                await openai_client.files.content("file-1")
            file = await openai_client.files.create(file=b"{}", purpose="batch")
            window: Any = "1h"
            with pytest.raises(openai.BadRequestError, match="24h"):
                await openai_client.batches.create(
                    completion_window=window, endpoint="/v1/responses", input_file_id=file.id
                )
            with pytest.raises(openai.BadRequestError, match="No such File"):
                await openai_client.batches.create(
                    completion_window="24h", endpoint="/v1/responses", input_file_id="file-1"
                )
            asked: Any = [{"custom_id": "a b", "params": {}}]
            with pytest.raises(anthropic.BadRequestError, match="custom_id"):
                await claude.messages.batches.create(requests=asked)
            with pytest.raises(anthropic.NotFoundError):
                await claude.messages.batches.retrieve("msgbatch_1")
            asked[0]["custom_id"] = "a"
            batch = await claude.messages.batches.create(requests=asked)
            early = await claude.get(f"/v1/messages/batches/{batch.id}", cast_to=object)
            assert early["results_url"] is None  # type: ignore[index]
    assert not server.requests


MESSAGE: Any = {"role": "user", "content": "?"}
