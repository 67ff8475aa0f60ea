"""Payloads and failures as a client's data converter wrote them."""

from __future__ import annotations

from collections.abc import Sequence

from temporalio.api.common.v1 import Payload
from temporalio.api.failure.v1 import Failure
from temporalio.common import RawValue
from temporalio.converter import DataConverter

__all__ = ["PayloadReader"]


class PayloadReader:
    """Decrypts, and whatever else the client's codec does.

    Args:
        converter: The client's.
    """

    def __init__(self, converter: DataConverter) -> None:
        self._converter = converter

    async def read(self, payloads: Sequence[Payload]) -> list[RawValue]:
        """Payloads as the library wrote them."""
        decoded: list[RawValue] = await self._converter.decode(payloads, [RawValue] * len(payloads))
        return decoded

    async def read_text(self, payload: Payload) -> str:
        """A text that the SDK wrote, such as a summary."""
        [text] = await self._converter.decode([payload], [str])
        return str(text)

    async def read_failure(self, failure: Failure) -> BaseException:
        """The exception that failed something."""
        return await self._converter.decode_failure(failure)
