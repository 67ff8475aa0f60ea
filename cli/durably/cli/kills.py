"""Where the demo kills its worker: a plan of points, each of which must come about."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from durably.core.steps import Point

__all__ = ["MAX_KILLS", "Kill", "plan_kills", "step_id"]

MAX_KILLS = 12

READERS = ("tool-measure", "tool-search", "tool-read_file")
EFFECT = ("tool-add_findings",)
THINK = ("think",)

WORDS = {
    "in_body": "in the body of {step}",
    "after_effect": "after the effect of {step}, before its commit",
    "after_commit": "between two steps, after {step}",
    "replay": "while catching up, at {step}",
    "before_result": "after the last step, before the result was recorded",
}


class Kill(BaseModel):
    """One SIGKILL to come.

    Attributes:
        point: The engine's point.
        steps: The step ids it may happen in; empty for any.
        passage: Which passage of the point in one step: a body passes ``in_body`` as often as it likes.
        patience: Seconds to wait at the point for another step to be committed, so that a kill among concurrent
            steps shows both.
    """

    model_config = ConfigDict(frozen=True)

    point: str
    steps: tuple[str, ...] = ()
    passage: int = 1
    patience: float = 0.0

    def at(self, point: Point) -> bool:
        """Whether this is the point, passages aside."""
        return point.name == self.point and (not self.steps or step_id(point.key) in self.steps)


def step_id(key: str) -> str:
    """The id in a step key."""
    return key.rpartition("/")[2].partition(":")[0]


def words(point: str, step: str) -> str:
    """Where a kill happened, for people."""
    return WORDS.get(point, "from outside").format(step=step)


def plan_kills(count: int, *, scripted: bool) -> list[Kill]:
    """The first three are one of each kind; further ones come during recovery and later in the run.

    Args:
        count: How many, at most `MAX_KILLS`.
        scripted: Whether the order of the calls is known.
    """
    early = [
        Kill(
            point="in_body",
            steps=READERS[:1] if scripted else READERS,
            passage=2 if scripted else 1,
            patience=0.5,
        ),
        Kill(point="after_commit", steps=THINK),
    ]
    late = [
        Kill(point="after_effect", steps=EFFECT),
        Kill(point="in_body", steps=EFFECT, passage=2),
        Kill(point="after_effect", steps=THINK),
        Kill(point="before_result"),
    ]
    if not scripted:
        late = [late[0], late[3]]  # a real model may add its findings at once, and answer with them
    extra = max(0, count - len(early) - len(late))
    recovery = [Kill(point="replay", steps=THINK) for _ in range(extra)]
    return [*early[:count], *recovery, *late][:count]
