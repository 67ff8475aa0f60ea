"""Where the demo kills its worker: a plan of points, each of which must come about."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from durably.testing import Crash

__all__ = ["MAX_KILLS", "Kill", "describe_kill", "plan_kills"]

MAX_KILLS = 12

THINK = "think*"
EFFECT = "*tool-add_findings*"

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
        crash: Where.
        patience: Seconds to wait at the point for another step to be committed, so that a kill among concurrent
            steps shows both.
    """

    model_config = ConfigDict(frozen=True)

    crash: Crash
    patience: float = 0.0


def describe_kill(point: str, step: str) -> str:
    """Says where a kill happened."""
    return WORDS.get(point, "from outside").format(step=step)


def plan_kills(count: int, *, scripted: bool) -> list[Kill]:
    """The first three are one of each kind; further ones come during recovery and later in the run.

    Args:
        count: How many, at most `MAX_KILLS`.
        scripted: Whether the order of the calls is known.
    """
    # Every body passes ``in_body`` once when it starts. The second passage is inside the long tool; where the calls are
    # not known it is inside the second tool, which a real model rarely does without.
    busy = Crash("*tool-measure" if scripted else "*tool-*", "in_body", 1)
    early = [Kill(crash=busy, patience=0.5), Kill(crash=Crash(THINK, "after_commit"))]
    late = [
        Kill(crash=Crash(EFFECT, "after_effect")),
        Kill(crash=Crash(EFFECT, "in_body", 1)),
        Kill(crash=Crash(THINK, "after_effect")),
        Kill(crash=Crash("", "before_result")),
    ]
    if not scripted:
        late = [late[0], late[3]]  # a real model may add its findings at once, and answer with them
    extra = max(0, count - len(early) - len(late))
    recovery = [Kill(crash=Crash(THINK, "replay")) for _ in range(extra)]
    return [*early[:count], *recovery, *late][:count]
