"""The typed answer of an agent: the schema that a provider is given, how it is read, and what is said of a wrong one.

Owns: these three. Does not own: how often a model may try (``loop.py``), and the strict form of a schema (providers).
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import to_json

from durably.core.differences import find_nan
from durably.core.error_text import error_text, type_name
from durably.core.errors import SerializationError
from durably.core.messages import AssistantMessage, TextPart
from durably.core.model import AnswerVerdict, ModelResponse
from durably.core.serialization import Codec

__all__ = ["OutputForm"]

WRAPPED = "answer"
"""The one field of the object around an answer that is none itself."""

ERRORS = 5
"""So many errors of an answer are told to the model."""

_FENCED = re.compile(r"```[a-zA-Z]*[ \t]*\n(.*?)```", re.DOTALL)


class OutputForm:
    """How an agent's answer is asked for and read.

    Args:
        codec: Reads and writes its type.

    Attributes:
        codec: See above.
        schema: The JSON schema for the provider. Providers want an object: a type whose JSON is none, such as
            ``list[int]``, stands in the one field of one.
    """

    def __init__(self, codec: Codec) -> None:
        self.codec = codec
        schema = codec.json_schema()
        self._wraps = schema.get("type") != "object"
        self.schema: Mapping[str, Any] = _wrapped(schema) if self._wraps else schema

    def read(self, message: AssistantMessage) -> tuple[object, str | None]:
        """Return the answer, and what is wrong with it, in words for the model, or ``None``.

        Args:
            message: What the model said. What it says before and around the answer does no harm: the answer may be all
                of the text, one part of it, or a fenced block.
        """
        fenced = [found.strip() for found in reversed(_FENCED.findall(message.text))]
        parts = [part.text for part in reversed(message.parts) if isinstance(part, TextPart)]
        reasons = {}
        for text in dict.fromkeys([message.text, *fenced, *parts]):
            try:
                return self._parse(text), None
            except Exception as error:  # it is of another type, or a validator of the user's raised what it liked
                reasons[text] = _reason(error)
        return None, self.complaint(reasons[fenced[0] if fenced else message.text])

    def complaint(self, reason: str) -> str:
        """Return what the model is told of an answer that was not taken."""
        schema = json.dumps(self.schema, ensure_ascii=False)
        return f"Your answer was not taken: {reason}. Answer with JSON of this schema, and nothing else: {schema}"

    def read_old(self, text: str) -> tuple[object, str | None]:
        """Read the answer of a record that has no verdict, as it was read when there were none."""
        try:
            output = self.codec.parse(text)
            self._check_kept(output, text)
        except Exception:
            return None, f"The answer must be JSON of this schema, and nothing else: {self.codec.json_schema()}"
        return output, None

    def judged(self, response: ModelResponse) -> ModelResponse:
        """Return an answer with the verdict on it, if it is a final one."""
        if response.stop_reason != "end":
            return response
        output, complaint = self.read(response.message)
        try:
            data = None if complaint is not None else json.loads(self.codec.encode(output, step="think"))
        except SerializationError:  # it has no JSON form: the run's result will say so
            return response
        return response.model_copy(update={"verdict": AnswerVerdict(complaint=complaint, output=data)})

    def _parse(self, text: str) -> object:
        if self._wraps:
            inner = _unwrapped(text)
            text = text if inner is None else inner
        output = self.codec.parse(text)
        self._check_kept(output, text)
        return output

    def _check_kept(self, output: object, text: str) -> None:
        """Refuse an answer that the record of the result would not give back.

        The text may hold NaN or 1e999, which pydantic reads, and a record keeps as null.

        Raises:
            SerializationError: If null will not do at their place.
        """
        try:
            json.loads(text, parse_constant=_refuse, parse_float=_finite)
        except (ValueError, RecursionError):
            if (found := find_nan(output)) is not None:
                raise ValueError(": ".join(filter(None, found))) from None
            written = to_json(output, inf_nan_mode="null").decode()
            if written != "null":
                self.codec.decode(written, step="think")


def _wrapped(schema: Mapping[str, Any]) -> dict[str, Any]:
    inner = {name: value for name, value in schema.items() if name != "$defs"}
    made: dict[str, Any] = {"type": "object", "properties": {WRAPPED: inner}, "required": [WRAPPED]}
    made["additionalProperties"] = False
    return {**made, "$defs": schema["$defs"]} if "$defs" in schema else made


def _unwrapped(text: str) -> str | None:
    """The JSON text of what stands in the object around an answer, or ``None`` if there is no such object."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return json.dumps(data[WRAPPED]) if isinstance(data, dict) and data.keys() == {WRAPPED} else None


def _reason(error: Exception) -> str:
    """What is wrong with an answer, in one line."""
    cause = error.__cause__ if isinstance(error, SerializationError) else error
    if isinstance(cause, ValidationError):
        found = cause.errors(include_url=False, include_input=False)
        said = [f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ") for each in found[:ERRORS]]
        return "; ".join(said)
    return error_text(error) or type_name(error)


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value
