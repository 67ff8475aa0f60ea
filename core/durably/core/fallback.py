"""A model that asks other models, one after another, when the first fails."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

from durably.core.errors import ContextWindowExceededError, DefinitionError, ModelError
from durably.core.model import (
    DeferringModel,
    Delta,
    Model,
    ModelRequest,
    ModelResponse,
    StreamingModel,
    resolve_model,
)
from durably.core.submission import Submission

__all__ = ["FallbackModel", "deferring", "with_fallback"]


def _always(error: ModelError) -> bool:
    return True


def deferring(model: Model) -> DeferringModel:
    """Return a model that has taken a request, to be asked for the answer.

    Raises:
        ModelError: If it is another model by now, which has no way to ask.
    """
    if isinstance(model, DeferringModel):
        return model
    provider, _, name = model.name.partition(":")
    raise ModelError(
        f"{model.name} cannot fetch an answer that was submitted before: give the agent the model that it had",
        provider=provider,
        model=name,
    )


class FallbackModel:
    """Tries models in order until one answers.

    It tries each model once, within one attempt of the step, without delays. If all fail, the engine retries the step
    if one of the errors may be retried.

    Args:
        models: Models or their names, best first. Each gets the same request options.
        when: Returns whether to try the next model after an error. Default: after every error. Other errors are raised
            at once.

    Raises:
        DefinitionError: If there are fewer than two models.
    """

    def __init__(self, *models: Model | str, when: Callable[[ModelError], bool] = _always) -> None:
        if len(models) < 2:
            raise DefinitionError("FallbackModel needs two models or more")
        self.models = tuple(resolve_model(model) for model in models)
        self.when = when

    @property
    def name(self) -> str:
        """The names of all models, such as ``"fallback:anthropic:claude-opus-4-6|openai:gpt-5"``."""
        return "fallback:" + "|".join(model.name for model in self.models)

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Answer a request.

        Raises:
            ModelError: If every model failed.
        """
        errors: list[ModelError] = []
        for place, model in enumerate(self.models):
            try:
                return _placed(await model.complete(request), place)
            except ModelError as error:
                if not self.when(error):
                    raise
                errors.append(error)
        raise _all_failed(errors) from errors[-1]

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        """Yield the pieces of the answer, and at the end the whole.

        If a model fails in the middle, its pieces were already yielded. The next model's have a higher ``answer``.

        Raises:
            ModelError: If every model failed.
        """
        errors: list[ModelError] = []
        for place, model in enumerate(self.models):
            try:
                if not isinstance(model, StreamingModel):
                    yield _placed(await model.complete(request), place)
                    return
                async for piece in model.stream(request):
                    if isinstance(piece, Delta):
                        yield piece.model_copy(update={"answer": place})
                    else:
                        yield _placed(piece, place)
                return
            except ModelError as error:
                if not self.when(error):
                    raise
                errors.append(error)
        raise _all_failed(errors) from errors[-1]

    async def fetch(self, submitted: Submission, request: ModelRequest) -> ModelResponse:
        """Ask the model that has taken a request for its answer. The others are not asked if it fails.

        Raises:
            ModelError: As the model does.
        """
        place, inner = submitted.inner()
        return _placed(await deferring(self.models[place]).fetch(inner, request), place)

    async def give_up(self, submitted: Submission) -> None:
        """Have the provider of the model that has taken a request stop working on it."""
        place, inner = submitted.inner()
        await deferring(self.models[place]).give_up(inner)


def _placed(response: ModelResponse, place: int) -> ModelResponse:
    """A response that says of a submission which model has it."""
    if response.submitted is None:
        return response
    return response.model_copy(update={"submitted": response.submitted.within(place)})


def _all_failed(errors: Sequence[ModelError]) -> ModelError:
    """Return one error for all. It may be retried if one of them may, after the shortest wait that they named."""
    retriable = [error for error in errors if error.retriable]
    waits = [error.retry_after for error in retriable]
    named = [wait for wait in waits if wait is not None]
    lead = (retriable or errors)[0]
    # If one of them named no wait, its model may be asked after the engine's own delay: the other waits do not count.
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


def with_fallback(model: Model | str, fallback: Model | str | Sequence[Model | str]) -> Model:
    """Return a model that asks others, in order, when it fails; without others, the model itself."""
    others = [fallback] if isinstance(fallback, str) or not isinstance(fallback, Sequence) else fallback
    return FallbackModel(model, *others) if others else resolve_model(model)
