"""The sink: hands the pieces of a streamed answer to a listener, in the process that runs the step.

Owns: numbering the pieces, and a listener's failure. Does not own: the whole answer, which the step records.
"""

from __future__ import annotations

import logging

from durably.core.errors import ModelError
from durably.core.model import Delta, DeltaSink, ModelRequest, ModelResponse, StreamedDelta, StreamingModel
from durably.core.steps import current_step

__all__ = ["publish"]

logger = logging.getLogger("durably")


async def publish(model: StreamingModel, request: ModelRequest, sink: DeltaSink | str) -> ModelResponse:
    """Ask a model for a streamed answer, and hand each piece of it to a listener.

    Args:
        model: The model.
        request: The request.
        sink: The listener, or the name of the resource that is one.

    Returns:
        The whole answer.

    Raises:
        ModelError: If the model failed, or the stream ended without an answer.
    """
    info = current_step()
    listen: DeltaSink = info.resources[sink] if isinstance(sink, str) else sink
    answer: ModelResponse | None = None
    offset = 0
    async for piece in model.stream(request):
        if not isinstance(piece, Delta):
            answer = piece
            continue
        delta = StreamedDelta(run_id=info.run_id, step=info.key, attempt=info.attempt, offset=offset, delta=piece)
        offset += 1
        try:
            heard = listen(delta)
            if heard is not None:
                await heard
        except Exception:  # a listener must not fail a model call that is paid for
            logger.warning("run %s: the sink of step %s failed", info.run_id, info.key, exc_info=True)
    if answer is None:
        provider, _, name = model.name.partition(":")
        raise ModelError("the stream ended without an answer", provider=provider, model=name, retriable=True)
    return answer
