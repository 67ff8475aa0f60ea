"""Real answers on file: recorded once, replayed offline, with a diff when the question has changed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from difflib import unified_diff
from pathlib import Path
from typing import Any, Literal

from pydantic import SecretStr

from durably.core import Model, ModelError
from durably.core.messages import Message
from durably.core.model import Delta, ModelRequest, ModelResponse, StreamingModel
from durably.core.secrets import MASK, Redactor
from durably.core.serialization import codec_for

__all__ = ["RecordedModel"]

_messages = codec_for(list[Message])

# What keys look like: those of the large providers begin alike, and a bearer token follows its name.
_LOOKS_LIKE_A_KEY = re.compile(
    r"\b(?:sk|pk|rk|xai|gsk|hf|AIza|ghp|AKIA)[-_]?[A-Za-z0-9_-]{16,}|(?<=Bearer )[\w.~+/-]{8,}=*"
)
_KEY_NAME = re.compile(r".*_(API_KEY|TOKEN|SECRET|ACCESS_KEY)")


class RecordedModel:
    """Answers from a cassette: a JSON Lines file, one request with its response a line.

    A request that is on file is answered from it, any number of times. What is not on file is asked of the real model
    and added, or refused with a diff against the closest request that is. Several may record into one file; of two
    answers to one request the first counts.

    Args:
        path: The file.
        model: The real model; ``None`` to replay only.
        record: ``"once"`` records only if there is no file yet, ``"new"`` adds what is missing, ``"never"`` asks
            nothing.
        secrets: Texts to mask, beside the values of environment variables such as ``OPENAI_API_KEY`` and whatever looks
            like a key.
    """

    def __init__(
        self,
        path: str | Path,
        model: Model | None = None,
        *,
        record: Literal["once", "new", "never"] = "once",
        secrets: Iterable[str | SecretStr] = (),
    ) -> None:
        self.path = Path(path)
        self.model = model
        self._records = model is not None and (record == "new" or (record == "once" and not self.path.exists()))
        known = [value for name, value in os.environ.items() if _KEY_NAME.fullmatch(name) and len(value) >= 8]
        self._redactor = Redactor([*secrets, *known])
        self._tape: dict[str, tuple[dict[str, Any], ModelResponse]] = {}
        if self.path.exists():
            for line in self.path.read_text(encoding="utf-8").splitlines():
                entry = json.loads(line)
                self._keep(entry["request"], ModelResponse.model_validate(entry["response"]))

    @property
    def name(self) -> str:
        """The real model's name, or the file's."""
        return self.model.name if self.model is not None else f"recorded:{self.path.stem}"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """The recorded answer, or the real one, which is then recorded.

        Raises:
            ModelError: If the request is not on file and may not be asked; or as the real model does.
        """
        asked = self._clean(_request_json(request))
        known = self._tape.get(_key(asked))
        if known is not None:
            return known[1]
        return self._add(asked, await self._real(asked).complete(request))

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        """The pieces of the answer, then the whole. A recorded answer comes in one piece a part.

        Raises:
            ModelError: As :meth:`complete`.
        """
        asked = self._clean(_request_json(request))
        known = self._tape.get(_key(asked))
        if known is None and isinstance(real := self._real(asked), StreamingModel):
            async for piece in real.stream(request):
                yield piece if isinstance(piece, Delta) else self._add(asked, piece)
            return
        response = await self.complete(request)
        for delta in _deltas(response):
            yield delta
        yield response

    def _real(self, asked: dict[str, Any]) -> Model:
        if self.model is None or not self._records:
            raise ModelError(self._drift(asked), provider="recorded", model=self.path.stem)
        return self.model

    def _add(self, asked: dict[str, Any], response: ModelResponse) -> ModelResponse:
        if (known := self._tape.get(_key(asked))) is not None:  # asked twice at the same time
            return known[1]
        answered = self._clean(response.model_dump(mode="json"))
        line = json.dumps({"request": asked, "response": answered}, ensure_ascii=False, sort_keys=True)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab", buffering=0) as file:
            file.write(f"{line}\n".encode())  # in one piece, so that another recorder's line does not end up in it
        # The recorded form is what a replay gives, so the first run gets it too.
        return self._keep(asked, ModelResponse.model_validate(answered))

    def _keep(self, asked: dict[str, Any], response: ModelResponse) -> ModelResponse:
        return self._tape.setdefault(_key(asked), (asked, response))[1]

    def _clean(self, data: dict[str, Any]) -> dict[str, Any]:
        text = self._redactor.text(json.dumps(data, ensure_ascii=False))
        cleaned: dict[str, Any] = json.loads(_LOOKS_LIKE_A_KEY.sub(MASK, text))
        return cleaned

    def _drift(self, asked: dict[str, Any]) -> str:
        if not self._tape:
            return f"the cassette {self.path} holds no requests; give RecordedModel a model to record from"
        lines = _lines(asked)
        recorded = [_lines(request) for request, _ in self._tape.values()]
        closest = min(recorded, key=lambda each: len(set(each) ^ set(lines)))
        diff = "\n".join(unified_diff(closest, lines, "recorded", "asked", lineterm="", n=2))
        return (
            f"the request is not on the cassette {self.path}. The closest of the {len(recorded)} that are:\n{diff}\n"
            "If the change is meant, delete the file, or pass record='new', and run once with the real model."
        )


def _request_json(request: ModelRequest) -> dict[str, Any]:
    made: dict[str, Any] = {
        "system": request.system,
        "messages": json.loads(_messages.encode(list(request.messages), step="")),
        "tools": [
            {"name": spec.name, "description": spec.description, "parameters": _plain(spec.parameters)}
            for spec in request.tools
        ],
        "options": _plain(request.options),
    }
    if request.reminder:
        made["reminder"] = request.reminder
    for made_tool, spec in zip(made["tools"], request.tools, strict=True):
        told = {"strict": spec.strict, "deferred": spec.deferred, "examples": [*spec.examples], "native": spec.native}
        made_tool.update(_plain({name: value for name, value in told.items() if value}))
    if request.server_tools:
        made["server_tools"] = [str(each) for each in request.server_tools]
    if request.output_schema is not None:
        made["output_schema"] = _plain(request.output_schema)
    return made


def _plain(data: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(data), default=str))


def _key(asked: dict[str, Any]) -> str:
    return json.dumps(asked, sort_keys=True)


def _lines(asked: dict[str, Any]) -> list[str]:
    return json.dumps(asked, indent=2, ensure_ascii=False, sort_keys=True).splitlines()


def _deltas(response: ModelResponse) -> Iterable[Delta]:
    for index, part in enumerate(response.message.parts):
        if part.type == "tool_call":
            text = part.arguments if isinstance(part.arguments, str) else json.dumps(part.arguments)
            yield Delta(kind="tool_call", text=text, index=index)
        elif part.type != "opaque":
            yield Delta(kind="thinking" if part.type == "thinking" else "text", text=part.text, index=index)
