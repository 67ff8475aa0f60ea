"""What the model is told of the end that comes: the turns and the budget that are left.

It is the reminder of a request, and stands in no transcript. The system prompt and all messages stay as they were, so
that a provider's prompt cache goes on.
"""

from __future__ import annotations

__all__ = ["hint_text"]


def hint_text(turns_left: int | None, spent: int | None) -> str:
    """Return the words.

    Args:
        turns_left: How many turns are left, this one included; ``None`` to say nothing of it.
        spent: How much of the budget is spent, in percent; ``None`` to say nothing of it.
    """
    said = []
    if turns_left is not None:
        turns = "turn" if turns_left == 1 else "turns"
        said.append(f"You have {turns_left} {turns} left, this one included.")
    if spent is not None:
        said.append(f"{spent}% of your budget is spent.")
    return " ".join([*said, "Bring the work to an end."]) if said else ""
