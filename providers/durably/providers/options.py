"""The keyword arguments of an SDK, made from the body of a request."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["plain_body", "sdk_arguments"]

_OF_THE_SDK = ("extra_headers", "extra_query", "timeout")


def sdk_arguments(body: Mapping[str, Any], *required: str) -> dict[str, Any]:
    """Return the arguments of the SDK's ``create`` for a body.

    All but the required parameters go into ``extra_body``, so that an option which the installed SDK does not know
    reaches the provider as well.

    Args:
        body: The request's JSON. The keys ``extra_headers``, ``extra_query``, ``extra_body`` and ``timeout`` mean in it
            what they mean to the SDKs.
        required: The parameters that ``create`` requires by name.
    """
    named = {name: body[name] for name in (*required, *_OF_THE_SDK) if name in body}
    rest = {name: value for name, value in body.items() if name not in named and name != "extra_body"}
    return {**named, "extra_body": {**rest, **body.get("extra_body", {})}}


def plain_body(body: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the JSON of a request that stands in a batch, and the headers that go with the batch.

    Args:
        body: The request's JSON, as for :func:`sdk_arguments`.
    """
    plain = {name: value for name, value in body.items() if name not in (*_OF_THE_SDK, "extra_body")}
    return {**plain, **body.get("extra_body", {})}, dict(body.get("extra_headers", {}))
