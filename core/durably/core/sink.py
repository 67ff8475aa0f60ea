"""The sink: hands the pieces of a streamed answer to those who listen, in the process that runs the step.

Owns: numbering the pieces, and the failure of an agent's own listener. Does not own: the backend's observers
(``observer.py``), and the whole answer, which the step records.
"""

from __future__ import annotations

import logging

from durably.core.errors import ModelError
from durably.core.model import Delta, DeltaSink, ModelRequest, ModelResponse, StreamedDelta, StreamingModel
from durably.core.steps import StepInfo, current_step

__all__ = ["publish"]

logger = logging.getLogger("durably")


async def publish(model: StreamingModel, request: ModelRequest, sink: DeltaSink | str | None) -> ModelResponse:
    """Ask a model for a streamed answer, and hand each piece of it to the observers and to a listener.

    Args:
        model: The model.
        request: The request.
        sink: The agent's own listener, the name of the resource that is one, or ``None``.

    Returns:
        The whole answer.

    Raises:
        ModelError: If the model failed, or the stream ended without an answer.
    """
    info = current_step()
    listen: DeltaSink | None = info.resources[sink] if isinstance(sink, str) else sink
    answer: ModelResponse | None = None
    offset = 0
    try:
        async for piece in model.stream(request):
            if not isinstance(piece, Delta):
                answer = piece
                continue
            await _show(_placed(piece, info, offset), info, listen)
            offset += 1
    finally:
        await info.observers.flush()  # before the record of the answer, behind which they would come too late
    if answer is None:
        provider, _, name = model.name.partition(":")
        raise ModelError("the stream ended without an answer", provider=provider, model=name, retriable=True)
    return answer


def _placed(piece: Delta, info: StepInfo, offset: int) -> StreamedDelta:
    return StreamedDelta(
        run_id=info.run_id,
        function=info.function,
        step=info.key,
        attempt=info.attempt,
        offset=offset,
        delta=piece.model_copy(update={"text": info.observers.redact(piece.text)}),
        at=info.observers.now(),
    )


async def _show(delta: StreamedDelta, info: StepInfo, listen: DeltaSink | None) -> None:
    info.observers.tell(delta)
    if listen is None:
        return
    try:
        heard = listen(delta)
        if heard is not None:
            await heard
    except Exception:  # a listener must not fail a model call that is paid for
        logger.warning("run %s: the sink of step %s failed", info.run_id, info.key, exc_info=True)
