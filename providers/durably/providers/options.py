"""How a request's body is handed to an SDK that wants keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["sdk_arguments"]

_OF_THE_SDK = ("extra_headers", "extra_query", "timeout")


def sdk_arguments(body: Mapping[str, Any], *required: str) -> dict[str, Any]:
    """The arguments of the SDK's ``create`` for a body.

    Everything but the required parameters goes in as ``extra_body``, so that an option which the installed SDK does
    not know yet reaches the provider too.

    Args:
        body: The request's JSON. In it ``extra_headers``, ``extra_query``, ``extra_body`` and ``timeout`` keep the
            sense that the SDKs give them.
        required: The parameters that ``create`` must be given by name.
    """
    named = {name: body[name] for name in (*required, *_OF_THE_SDK) if name in body}
    rest = {name: value for name, value in body.items() if name not in named and name != "extra_body"}
    return {**named, "extra_body": {**rest, **body.get("extra_body", {})}}
