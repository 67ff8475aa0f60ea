"""What is said of a step that was written in a way that cannot work: what to write instead."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any, NoReturn

from durably.core.counts import is_count
from durably.core.error_text import shown
from durably.core.errors import DefinitionError
from durably.core.reference import FunctionRef
from durably.core.serialization import codec_for

__all__ = [
    "LEFT_OUT",
    "check_body",
    "check_client",
    "check_function_id",
    "check_given",
    "check_invoked",
    "check_match",
    "check_objects",
    "check_path",
]


class LeftOut:
    """What stands in the place of an argument that was not given."""

    def __repr__(self) -> str:
        return "nothing"


LEFT_OUT: Any = LeftOut()


def check_body(step_id: object, fn: object) -> None:
    """Refuse a step without an id or without a body.

    Raises:
        TypeError: If there is one of them.
    """
    if fn is not LEFT_OUT and not callable(step_id):
        return
    if callable(step_id):
        name = getattr(step_id, "__name__", "fn")
        wanted = "save-answer" if name == "<lambda>" else name.replace("_", "-")
        _refuse(f"step.run({name}) has no step id: write step.run({wanted!r}, {name}, ...)")
    _refuse(f"step.run({step_id!r}) has no body: write step.run({step_id!r}, fn, ...), where fn is what does the work")


def check_given(method: str, step_id: object, value: object, example: str) -> None:
    """Refuse a step of which only one of two arguments was given.

    Raises:
        TypeError: If it is so.
    """
    if value is LEFT_OUT:
        _refuse(f"step.{method}({shown(step_id)}) lacks its step id: write step.{method}({example})")


def check_invoked(step_id: object, function: object) -> None:
    """Refuse to invoke what is no durable function.

    Raises:
        TypeError: If it is none.
    """
    if isinstance(function, FunctionRef):
        return
    if function is LEFT_OUT:
        _refuse(f"step.invoke({shown(step_id)}) lacks its step id: write step.invoke('ask', {_name(step_id)}, data)")
    if isinstance(function, str):
        _refuse(
            f"step.invoke({step_id!r}, {function!r}) names a function by text: pass the function itself, or "
            f"FunctionRef({function!r}) for one that another program serves"
        )
    if callable(function):
        _refuse(
            f"step.invoke({step_id!r}, {_name(function)}): {_name(function)} is no durable function; decorate it with "
            f"@function('its-id'), or run it as a step: step.run({step_id!r}, {_name(function)}, ...)"
        )
    _refuse(f"step.invoke({step_id!r}, ...) takes a durable function or an agent, not {shown(function)}")


def check_match(step_id: str, match: object, redact: Callable[[str], str]) -> dict[str, Any]:
    """Return a match of an event as events are compared: with the JSON of its values.

    What is no match is refused, and one that names a secret: it would be written, and events have none.

    Args:
        step_id: The step.
        match: What was given.
        redact: Masks secrets in a text.

    Raises:
        TypeError: If it is none.
        ValueError: If it names a secret.
        SerializationError: If a value in it has no JSON form.
    """
    if match is None:
        return {}
    if not isinstance(match, Mapping):
        _refuse(
            f"step {step_id!r}: match= is a dict of dotted paths in the event's data and the values that must be "
            f"there, such as {{'order.id': '7'}}, not {shown(match)}"
        )
    for path in match:
        if not isinstance(path, str):
            _refuse(f"step {step_id!r}: match= has dotted paths as its keys, such as 'order.id', not {shown(path)}")
    text, wanted = codec_for(Any).round_trip(dict(match), step=step_id, limit=None, redact=str)
    if redact(text) != text:
        raise ValueError(
            f"step {step_id!r}: match= names a registered secret, which is masked in every event: match something "
            "else, such as an id, and compare the secret in a step"
        )
    return wanted  # type: ignore[no-any-return]


def check_function_id(id: object) -> None:
    """Refuse a decorator that was given no id.

    Raises:
        DefinitionError: If it was not.
    """
    if not isinstance(id, str):
        name = str(getattr(id, "__name__", "handle"))
        wanted = name.replace("_", "-")
        raise DefinitionError(f"@function has no id: write @function({wanted!r}) above 'async def {name}'")


def check_event_loop() -> None:
    """Refuse to open a backend where asyncio does not run, as under trio.

    Raises:
        RuntimeError: If it does not.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise RuntimeError(
            "backends run on asyncio, and no event loop of it runs here: start the program with asyncio.run(main()), "
            "or with anyio and its asyncio backend"
        ) from None


def check_backend_options(resources: object, secrets: object, max_payload_bytes: object) -> None:
    """Refuse options of a backend that cannot be what they are for.

    Raises:
        DefinitionError: If one is something else.
    """
    if resources is not None and not isinstance(resources, Mapping):
        raise DefinitionError(f"resources= is a dict, such as {{'shop': client}}, not a {type(resources).__name__}")
    if isinstance(secrets, str) or not isinstance(secrets, Iterable):
        raise DefinitionError("secrets= is a list of texts, such as [os.environ['API_KEY']]")  # which is not shown
    if max_payload_bytes is not None and not is_count(max_payload_bytes, 1):
        raise DefinitionError(f"max_payload_bytes= is a number of bytes, 1 or more, not {shown(max_payload_bytes)}")


def check_client(backend: str, client: object, kind: type, example: str) -> None:
    """Refuse what is no client of an engine's server, such as its address.

    Raises:
        DefinitionError: If it is none.
    """
    if not isinstance(client, kind):
        raise DefinitionError(f"{backend} takes a client, not {shown(client)}: write {backend}({example}, ...)")


def check_known(where: str, options: Mapping[str, Any], known: Iterable[str]) -> None:
    """Refuse an option that there is not: what it was to do would not be done.

    Args:
        where: What has the options, for the error.
        options: What was given by name.
        known: The names of all options.

    Raises:
        DefinitionError: If one is unknown. The message names what is most like it.
    """
    names = list(known)
    for name in options:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            instead = f"did you mean {near[0]}=?" if near else f"these are: {', '.join(sorted(names))}"
            raise DefinitionError(f"{where}: there is no option {name}=; {instead}")


def check_objects(where: str, options: Mapping[str, Any], kinds: Mapping[str, tuple[type, str]]) -> None:
    """Refuse an option that is not of its class.

    Args:
        where: What has the options, for the error.
        options: The options; ``None`` stands for one that is left out.
        kinds: The class of each, and how an object of it is written.

    Raises:
        DefinitionError: If one is not.
    """
    for name, (kind, example) in kinds.items():
        given = options.get(name)
        several = given if isinstance(given, list | tuple) and name == "concurrency" else [given]
        if not all(each is None or isinstance(each, kind) for each in several):
            raise DefinitionError(f"{where}: {name}={shown(given)}: write {name}={example}")


def _name(value: object) -> str:
    return str(getattr(value, "id", None) or getattr(value, "__name__", None) or "function").replace("-", "_")


def _refuse(sentence: str) -> NoReturn:
    raise TypeError(sentence)


def check_path(path: str | os.PathLike[str]) -> None:
    """Refuse what is meant as a database but names no file.

    Raises:
        DefinitionError: If it is nothing, SQLite's name for memory, or a URL.
    """
    text = str(path)
    if text == ":memory:":
        raise DefinitionError("':memory:' is no file that the next process could open: use MemoryBackend")
    if not text:
        raise DefinitionError("the path of the database is empty: write SQLiteBackend('runs.db', ...)")
    if text.startswith("sqlite://"):
        raise DefinitionError(f"{text!r} is a URL, as the command line takes them: write the path alone")
