"""What a client brings along is kept: TLS, an API key, converters, interceptors, tracing."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import trustme
from cryptography.fernet import Fernet
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from temporalio import activity
from temporalio.api.common.v1 import Payload
from temporalio.client import Client, TLSConfig
from temporalio.client import Interceptor as ClientInterceptor
from temporalio.contrib.opentelemetry import TracingInterceptor
from temporalio.contrib.pydantic import pydantic_data_converter
from temporalio.converter import (
    ActivitySerializationContext,
    DataConverter,
    DefaultFailureConverterWithEncodedAttributes,
    PayloadCodec,
    SerializationContext,
    WithSerializationContext,
)
from temporalio.worker import ActivityInboundInterceptor, ExecuteActivityInput, Interceptor

from durably.backends.temporal import TemporalBackend
from durably.core import Agent, Context, Event, StepError, ToolError, function, tool
from durably.core.ids import new_id
from durably.testing import ScriptedModel, call
from tests.temporal.proxy import Proxy

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(180)]

WORD = "platypus"
"""What no reader of the server's data may find."""


@tool
async def get_order(order_id: str) -> str:
    """Look up one order."""
    if order_id == "9":
        raise ToolError(f"no {WORD} there")
    return f"a {WORD} for {order_id}"


support = Agent(
    "support",
    model=ScriptedModel(call("get_order", order_id="7"), call("get_order", order_id="9"), f"A {WORD}."),
    instructions=f"Mind the {WORD}.",
    tools=[get_order],
)
STEPS = ["load-context", "load-history", "think", "tool-get_order", "think", "tool-get_order", "think"]


async def ask(client: Client, **options: Any) -> str:
    """A run of the agent with a client; its id."""
    async with TemporalBackend(client, task_queue=new_id(), functions=[support], **options) as backend:
        run = await backend.start(support, f"Where is my {WORD}?")
        assert (await run.result()).text == f"A {WORD}."
        return run.id


async def test_tls_with_certificates_on_both_sides_and_an_api_key(temporal_address: str) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    mine = authority.issue_cert("worker@example.org")
    tls = TLSConfig(
        server_root_ca_cert=authority.cert_pem.bytes(),
        client_cert=b"".join(blob.bytes() for blob in mine.cert_chain_pems),
        client_private_key=mine.private_key_pem.bytes(),
    )
    async with Proxy(temporal_address, context).running() as proxy:
        client = await Client.connect(f"localhost:{proxy.port}", tls=tls, api_key="key-of-the-cloud")
        await ask(client)
        called = {request[":path"].rpartition("/")[2] for request in proxy.requests}
        assert {"StartWorkflowExecution", "PollWorkflowTaskQueue", "RespondActivityTaskCompleted"} <= called
        assert {request["authorization"] for request in proxy.requests} == {"Bearer key-of-the-cloud"}


async def test_a_converter_of_the_users(temporal_address: str) -> None:
    client = await Client.connect(temporal_address, data_converter=pydantic_data_converter)
    run_id = await ask(client)
    history = await client.get_workflow_handle(run_id).fetch_history()
    assert WORD in str([event.activity_task_completed_event_attributes.result for event in history.events])


class Encryption(PayloadCodec):
    """Encrypts every payload whole."""

    def __init__(self) -> None:
        self._key = Fernet(Fernet.generate_key())

    async def encode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [
            Payload(metadata={"encoding": b"binary/encrypted"}, data=self._key.encrypt(each.SerializeToString()))
            for each in payloads
        ]

    async def decode(self, payloads: Sequence[Payload]) -> list[Payload]:
        return [Payload.FromString(self._key.decrypt(each.data)) for each in payloads]


async def fail() -> None:
    raise ValueError(f"no {WORD}")


@function("everything")
async def everything(ctx: Context[str]) -> str:
    asked = await ctx.step.invoke("ask", support, ctx.input)
    await ctx.step.sleep("rest", 0.01)
    reply, _ = await ctx.step.gather(
        lambda: ctx.step.wait_for_event("reply", "client/reply", match={"to": ctx.input}),
        lambda: ctx.step.send_event("tell", Event("client/reply", {"to": ctx.input})),
    )
    try:
        await ctx.step.run("fail", fail, retries=0)
    except StepError as error:
        return f"{asked.text} {reply} {error}"
    return ""


async def test_an_encrypting_codec_leaves_nothing_to_read(temporal_address: str) -> None:
    converter = DataConverter(
        payload_codec=Encryption(), failure_converter_class=DefaultFailureConverterWithEncodedAttributes
    )
    client = await Client.connect(temporal_address, data_converter=converter)
    queue = new_id()
    async with TemporalBackend(client, task_queue=queue, functions=[everything, support]) as backend:
        run = await backend.start(everything, f"Where is my {WORD}?")
        assert (await run.result()).count(WORD) == 3
        records = (await run.history()).steps()
        assert {"rest", "gather[0]/reply", "fail"} <= {record.key for record in records}
    plain = await Client.connect(temporal_address)
    seen = [each async for each in plain.list_workflows(f"TaskQueue = '{queue}'")]
    assert len(seen) >= 3, "the run, its child, and the hub of the event"
    for each in seen:
        history = await plain.get_workflow_handle(each.id, run_id=each.run_id).fetch_history()
        assert WORD.encode() not in b"".join(event.SerializeToString() for event in history.events), each.id


class Marking(Encryption, WithSerializationContext):
    """A codec that wants to know which step a payload belongs to."""

    def __init__(self, known: Encryption, seen: set[str]) -> None:
        self._key = known._key
        self._known, self._seen = known, seen

    def with_context(self, context: SerializationContext) -> Marking:
        if isinstance(context, ActivitySerializationContext):
            self._seen.add(context.activity_type or "")
        return Marking(self._known, self._seen)


async def test_a_codec_is_told_which_step_a_payload_belongs_to(temporal_address: str) -> None:
    seen: set[str] = set()
    converter = DataConverter(payload_codec=Marking(Encryption(), seen))
    await ask(await Client.connect(temporal_address, data_converter=converter))
    assert set(STEPS) <= seen


class Listening(ClientInterceptor, Interceptor):
    """Notes each activity, as one that meters or authorizes would."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def intercept_activity(self, next: ActivityInboundInterceptor) -> ActivityInboundInterceptor:
        return _Listener(next, self.seen)


class _Listener(ActivityInboundInterceptor):
    def __init__(self, next: ActivityInboundInterceptor, seen: list[str]) -> None:
        super().__init__(next)
        self._seen = seen

    async def execute_activity(self, input: ExecuteActivityInput) -> Any:
        self._seen.append(activity.info().activity_type)
        return await super().execute_activity(input)


async def test_interceptors_of_the_client_and_of_the_worker(temporal_address: str) -> None:
    mine, workers = Listening(), Listening()
    client = await Client.connect(temporal_address, interceptors=[mine])
    await ask(client, worker_options={"interceptors": [workers]})
    assert mine.seen == workers.seen == STEPS


@pytest.mark.parametrize("cached", [1_000, 0])
async def test_a_trace_has_each_step_once_and_replay_adds_none(temporal_address: str, cached: int) -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracing = TracingInterceptor(provider.get_tracer("test"))
    client = await Client.connect(temporal_address, interceptors=[tracing])
    await ask(client, worker_options={"max_cached_workflows": cached})
    spans = exporter.get_finished_spans()
    [trace] = {_trace_of(span) for span in spans if span.name == "StartWorkflow:support"}
    # Without a cache an activity asks for the conversation by query, which has spans of its own.
    seen = Counter(span.name for span in spans if _trace_of(span) == trace and "Query" not in span.name)
    expected = Counter(f"RunActivity:{name}" for name in STEPS) + Counter(f"StartActivity:{name}" for name in STEPS)
    assert seen == expected + Counter(["StartWorkflow:support", "RunWorkflow:support", "CompleteWorkflow:support"])


def _trace_of(span: ReadableSpan) -> int:
    assert span.context is not None
    trace: int = span.context.trace_id
    return trace
