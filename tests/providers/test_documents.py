"""Office documents: as files where the provider takes them, as text where it does not, and never without a word."""

from __future__ import annotations

import importlib
import io
import zipfile
from base64 import b64encode
from collections.abc import Callable
from typing import Any

import openpyxl  # type: ignore[import-untyped]
import pptx
import pytest
from litellm.llms.bedrock.chat.converse_transformation import AmazonConverseConfig

from durably.core import ModelError, user
from durably.core.messages import AssistantMessage, FilePart, TextPart, ToolCall, ToolResultMessage, UserMessage
from durably.providers import Key, documents
from durably.providers.litellm import LiteLLMModel
from durably.testing.models.llm_server import LLMServer
from tests.providers.cases import RESPONSES, Case, ask, question
from tests.providers.subjects import ENV
from tests.providers.test_features import talk

pytestmark = pytest.mark.asyncio

CLAUDE = "anthropic.claude-sonnet-4-6"

_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_PACKAGE = "http://schemas.openxmlformats.org/package/2006"
_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"


def docx(text: str) -> bytes:
    """The smallest document of Word's."""
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    parts = {
        "[Content_Types].xml": f'<Types xmlns="{_PACKAGE}/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        f'<Override PartName="/word/document.xml" ContentType="{kind}"/></Types>',
        "_rels/.rels": f'<Relationships xmlns="{_PACKAGE}/relationships">'
        f'<Relationship Id="r1" Type="{_OFFICE}" Target="word/document.xml"/></Relationships>',
        "word/document.xml": f'<w:document xmlns:w="{_WORD}"><w:body><w:p><w:r><w:t>{text}</w:t></w:r></w:p></w:body>'
        "</w:document>",
    }
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as package:
        for name, content in parts.items():
            package.writestr(name, f'<?xml version="1.0" encoding="UTF-8"?>{content}')
    return made.getvalue()


def xlsx(text: str) -> bytes:
    book, made = openpyxl.Workbook(), io.BytesIO()
    sheet = book.active
    assert sheet is not None
    for row in (["city", "forecast"], ["Rome", text]):
        sheet.append(row)
    book.save(made)
    return made.getvalue()


def slides(text: str) -> bytes:
    show, made = pptx.Presentation(), io.BytesIO()
    title = show.slides.add_slide(show.slide_layouts[0]).shapes.title
    assert title is not None
    title.text = text
    show.save(made)
    return made.getvalue()


MAKERS: dict[str, Callable[[str], bytes]] = {"docx": docx, "xlsx": xlsx, "pptx": slides}


def document(kind: str, text: str = "Sunny in Rome", name: str = "") -> FilePart:
    media_type = next(each for each, ending in documents.OFFICE.items() if ending == kind)
    return FilePart(media_type=media_type, data=b64encode(MAKERS[kind](text)).decode(), name=name)


@pytest.fixture(params=MAKERS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


async def test_a_document_reaches_the_model(case: Case, kind: str) -> None:
    sent = document(kind)
    _, server = await talk(case, False, "ok", question(UserMessage(content=[TextPart(text="Read it."), sent])))
    [heard] = server.requests[0].messages
    assert isinstance(heard, UserMessage)
    if case is RESPONSES:
        [file] = [part for part in heard.content if isinstance(part, FilePart)]
        assert (file.media_type, file.data, file.name) == (sent.media_type, sent.data, f"file.{kind}")
    else:
        assert "Sunny in Rome" in str(heard.content)
        assert f"a file: {kind}" in str(heard.content)


async def test_a_document_in_a_result_reaches_the_model(case: Case) -> None:
    asked = AssistantMessage(parts=[ToolCall(id="c1", name="weather", arguments={"city": "X"})], provider=case.origin)
    result = ToolResultMessage(call_id="c1", name="weather", content=[document("xlsx", name="sun.xlsx")])
    _, server = await talk(case, False, "ok", question(user("?"), asked, result))
    said = str(server.requests[0].messages)
    assert "sun.xlsx" in said
    assert (case is RESPONSES) is ("Sunny in Rome" not in said)


async def test_bedrock_takes_those_that_it_reads_as_files() -> None:
    model = LiteLLMModel(f"bedrock/{CLAUDE}", key=Key(env=ENV))
    sent = {}
    for each in MAKERS:
        asked = question(UserMessage(content=[TextPart(text="Read it."), document(each, name=f"sun.{each}")]))
        made = model._arguments(asked, "k", "litellm:bedrock")["messages"]
        body: Any = AmazonConverseConfig()._transform_request(CLAUDE, made, {}, {}, {})
        sent[each] = body["messages"][0]["content"][1]
    assert {each: block.get("document", {}).get("format") for each, block in sent.items()} == {
        "docx": "docx",
        "xlsx": "xlsx",
        "pptx": None,
    }
    assert "Sunny in Rome" in sent["pptx"]["text"]


async def test_a_damaged_document_is_left_out_in_words(case: Case, kind: str) -> None:
    if case is RESPONSES:
        return  # the provider reads it
    whole = document(kind)
    damaged = FilePart(media_type=whole.media_type, data=b64encode(b"PK no document").decode(), name=f"bad.{kind}")
    _, server = await talk(case, False, "ok", question(UserMessage(content=[damaged])))
    assert f"left out here, since this model cannot read it: bad.{kind}" in str(server.requests[0].messages)


async def test_without_the_extra_the_error_names_it(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(documents, "import_module", missing)
    request = question(UserMessage(content=[document("docx", "Cloudy, without a reader")]))
    async with LLMServer("ok") as server:
        if case is RESPONSES:
            await ask(case.model(server), request, False)
            return
        with pytest.raises(ModelError, match=r"durably\[documents\]") as raised:
            await ask(case.model(server), request, False)
    assert not raised.value.retriable
    assert not server.received


async def test_a_document_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(name: str) -> Any:
        read.append(name)
        return importlib.import_module(name)

    monkeypatch.setattr(documents, "import_module", counted)
    part = document("xlsx", "Read once")
    texts = {documents.document_text(part) for _ in range(5)}
    assert len(texts) == 1, "and is the same each time, so that the prompt cache fits"
    assert read.count("markitdown") == 1
    for number in range(documents.KEPT):
        documents.document_text(document("xlsx", f"another {number}"))
    documents.document_text(part)
    assert read.count("markitdown") == documents.KEPT + 2, "it was forgotten meanwhile"
