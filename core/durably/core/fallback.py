"""A model that asks another one when the first fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from durably.core.errors import ContextWindowExceededError, DefinitionError, ModelError
from durably.core.model import Delta, Model, ModelRequest, ModelResponse, StreamingModel, resolve_model

__all__ = ["FallbackModel"]


def _always(error: ModelError) -> bool:
    return True


class FallbackModel:
    """Asks models in order until one answers.

    All are asked within one attempt of the step, each at most once: asking another model is no retry of the same
    request, and waiting stays the engine's. Once all have failed, the engine retries if any of them may be retried.

    Args:
        models: Models, or their names, best first. Request options go to each of them.
        when: Which errors lead on to the next model; left out, all. Any other error is raised at once.

    Raises:
        DefinitionError: If there are fewer than two.
    """

    def __init__(self, *models: Model | str, when: Callable[[ModelError], bool] = _always) -> None:
        if len(models) < 2:
            raise DefinitionError("FallbackModel needs two models or more")
        self.models = tuple(resolve_model(model) for model in models)
        self.when = when

    @property
    def name(self) -> str:
        """Such as ``"fallback:anthropic:claude-opus-4-6|openai:gpt-5"``."""
        return "fallback:" + "|".join(model.name for model in self.models)

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Answer a request.

        Raises:
            ModelError: If every model failed.
        """
        errors: list[ModelError] = []
        for model in self.models:
            try:
                return await model.complete(request)
            except ModelError as error:
                if not self.when(error):
                    raise
                errors.append(error)
        raise _all_failed(errors) from errors[-1]

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        """The pieces of the answer, then the whole.

        A model that fails in the middle leaves its pieces behind; those of the next one have a higher ``answer``.

        Raises:
            ModelError: If every model failed.
        """
        errors: list[ModelError] = []
        for place, model in enumerate(self.models):
            try:
                if not isinstance(model, StreamingModel):
                    yield await model.complete(request)
                    return
                async for piece in model.stream(request):
                    whole = not isinstance(piece, Delta)
                    yield piece if whole else piece.model_copy(update={"answer": place})
                return
            except ModelError as error:
                if not self.when(error):
                    raise
                errors.append(error)
        raise _all_failed(errors) from errors[-1]


def _all_failed(errors: Sequence[ModelError]) -> ModelError:
    """One error for all: as retriable as the best of them, and after the shortest wait that one of them named."""
    retriable = [error for error in errors if error.retriable]
    waits = [error.retry_after for error in retriable]
    named = [wait for wait in waits if wait is not None]
    lead = (retriable or errors)[0]
    # Without a wait of its own, a retriable model may be asked as soon as the engine thinks right.
    wait = min(named) if named and len(named) == len(waits) else None
    too_long = all(isinstance(error, ContextWindowExceededError) for error in errors)
    return (ContextWindowExceededError if too_long else ModelError)(
        f"all {len(errors)} models failed: " + "; ".join(str(error) for error in errors),
        provider=lead.provider,
        model=lead.model,
        status=lead.status,
        request_id=lead.request_id,
        retriable=bool(retriable),
        retry_after=wait,
    )
