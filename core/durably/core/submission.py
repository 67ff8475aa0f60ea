"""A request that its provider has taken and answers later.

Owns: what is known of it, and how long it is waited for. Does not own: submitting and fetching, which a model does
(``model.py``), and the steps that do so (``model_steps.py``).
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from durably.core.left_out import is_falsy

__all__ = ["Submission"]

GROWTH = 1.5
"""Each wait is longer than the one before by this factor."""


class Submission(BaseModel):
    """A request that its provider has taken and answers later.

    Args:
        id: The provider's id of it.
        kind: What it is there: an answer made in the background, or a batch of this one request.
        wait: Seconds to wait before the provider is asked for the first time.
        longest: Seconds between two questions at most.
        path: Which of the models it was, for a model made of several: a place in each.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    id: str
    kind: Literal["background", "batch"]
    wait: float
    longest: float
    path: list[int] = Field(default_factory=list, exclude_if=is_falsy)

    def delay(self, asked: int) -> float:
        """Return the seconds to wait when the provider was asked so many times."""
        # 1.5 ** 100 seconds are longer than any wait; 1.5 ** 1751 is no float any more.
        return min(self.longest, self.wait * GROWTH ** min(asked, 100))

    def within(self, place: int) -> Self:
        """Return the same, as a model made of several knows it: ``place`` is that of the one which has it."""
        return self.model_copy(update={"path": [place, *self.path]})

    def inner(self) -> tuple[int, Self]:
        """Return the place of the model that has it, and the same as that model knows it."""
        place, *rest = self.path
        return place, self.model_copy(update={"path": rest})
