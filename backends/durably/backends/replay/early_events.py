"""Events that come before the functions they are for: a name's first function takes up those that started nothing.

Whether an event is still to be taken up is decided by its name. While any registered function has the name as a
trigger, each event of it starts that function when it comes, and is done with. A function that is registered later than
another of the same trigger begins with the next event.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

from durably.backends.replay.flow.store import Entry
from durably.backends.replay.journal import Journal
from durably.backends.replay.journal_types import Changes, Received, Subscription

__all__ = ["sign_on"]

logger = logging.getLogger("durably")


def sign_on(journal: Journal, subscriptions: Sequence[Subscription], *, now: float, memory: float) -> Changes:
    """Register functions, and start them by the events that came before and started nothing, in one transaction.

    Args:
        journal: Where they are registered.
        subscriptions: The functions of one worker.
        now: The time, in seconds since 1970.
        memory: For how many seconds an event waits for its first function where other functions were registered when it
            came. In a journal without any function it waits as long as it is kept.
    """
    changes = Changes()
    with journal.transaction():
        known = journal.subscriptions()
        before = _triggers(known)
        early = _unheard(journal, sorted(_triggers(subscriptions) - before))
        journal.register(subscriptions)
        _note_end(journal, before - _triggers(journal.subscriptions()))
        oldest = now - memory if known else float("-inf")
        for received in early:
            if received.at >= oldest:
                journal.trigger(received.event, None, (), now, changes)
    late = sum(received.at < oldest for received in early)
    if late:
        logger.warning("%d events that came before their first function are too old to start it (%g s)", late, memory)
    return changes


def _triggers(subscriptions: Iterable[Subscription]) -> set[str]:
    return {name for each in subscriptions for name in each.triggers}


def _unheard(journal: Journal, names: Iterable[str]) -> list[Received]:
    """The events of names that no function has as a trigger, behind the last that had one, in order."""
    found = [each for name in names for each in journal.events_since(_heard(journal, name), name)]
    return sorted(found, key=lambda received: received.seq)


def _heard(journal: Journal, name: str) -> int:
    """Up to which place of the log the events of a name had a function."""
    entry = None if journal.flow is None else journal.flow.find("heard", name)
    return 0 if entry is None else int(entry.value)


def _note_end(journal: Journal, names: Iterable[str]) -> None:
    """Note that from now on events of these names start nothing.

    A storage that keeps no such notes must keep its runs: their ids, derived from the events, say what was started.
    """
    if journal.flow is not None:
        place = journal.cursor()
        for name in names:
            journal.flow.put(Entry(kind="heard", id=name, gate="heard", value=place))
