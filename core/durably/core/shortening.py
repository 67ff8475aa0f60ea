"""How the loop makes a conversation shorter that is too long for the model.

Does not own: when it is due (``loop.py``), and what is left out or summarised (``compaction.py``, ``pruning.py``).
"""

from __future__ import annotations

from durably.core.agent_parts import AgentParts
from durably.core.conversation import Conversation
from durably.core.model_steps import Later, call_model
from durably.core.progress import Progress
from durably.core.run_session import RunSession
from durably.core.steps import StepAPI

__all__ = ["can_prune", "shorten"]


def can_prune(agent: AgentParts, conversation: Conversation) -> bool:
    """Whether there are old results of tools that may be left out."""
    limits = agent.compaction
    return limits is not None and limits.prune and conversation.can_prune(limits.keep)


async def shorten(
    agent: AgentParts, step: StepAPI, session: RunSession, conversation: Conversation, progress: Progress
) -> bool:
    """Leave old results of tools out, or if that was of no use the turn before, have the older part summarised."""
    of_no_use = progress.pruned == progress.iterations - 1
    if agent.compaction is not None and can_prune(agent, conversation) and not of_no_use:
        conversation.transcript.prune(agent.compaction.keep)
        progress.pruned = progress.iterations
        return True
    return await _compact(agent, step, session, conversation, progress)


async def _compact(
    agent: AgentParts, step: StepAPI, session: RunSession, conversation: Conversation, progress: Progress
) -> bool:
    """Have the older part of the conversation summarised; ``False`` if there is none, or it is not wanted."""
    older = conversation.older(agent.compaction.keep) if agent.compaction else None
    if older is None or agent.compaction is None:
        return False
    later = Later("fetch-summary", agent.fetch_summary, agent.give_up_summary)
    response = await call_model(agent, step, "compact", agent.summarize, older, conversation.summary, later=later)
    progress.spent.add(response.usage, response.cost)
    if agent.compaction.save:
        await session.save_summary(response.message.text)
    conversation.compact(agent.compaction.keep, response.message.text)
    return True
