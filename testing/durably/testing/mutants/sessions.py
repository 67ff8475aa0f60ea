"""Mutants of C34: sessions that keep something twice, and messages that nobody takes up."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

from durably.backends.memory import MemoryBackend, MemoryJournal
from durably.backends.replay.steps import ReplaySteps
from durably.core import Function, MemorySessions
from durably.core.attempts import StepCall
from durably.core.ids import new_id
from durably.core.messages import SessionEntry
from durably.core.run_view import RunStatus
from durably.core.services import WaitingRun
from durably.testing.mutants.flow_control import _ByOtherPlans, without
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


class _Forgetful(MemorySessions):
    async def append(self, session_key: str, messages: Sequence[SessionEntry], *, key: str) -> None:
        await super().append(session_key, messages, key=new_id())


@mutant("C34")
class SaidTwice(MemoryJournal):
    """What a step saved before a crash is saved again after it."""

    def __init__(self) -> None:
        super().__init__()
        self._sessions = self.sessions = _Forgetful()


@mutant("C34")
class MessagesOverlooked(MemoryBackend):
    """A live run does not see which messages wait behind it."""

    async def _waiting(self, run_id: str, known: Collection[str]) -> list[WaitingRun]:
        return []


@mutant("C34")
class MessagesTakenUpAgain(MemoryBackend):
    """A live run takes up a message at each of its turns."""

    async def _waiting(self, run_id: str, known: Collection[str]) -> list[WaitingRun]:
        return await super()._waiting(run_id, ())


class _Sorted(MemorySessions):
    async def append(self, session_key: str, messages: Sequence[SessionEntry], *, key: str) -> None:
        await super().append(session_key, messages, key=key)
        self._appends[session_key].sort(key=str, reverse=True)


@mutant("C34")
class SaidInAnyOrder(MemoryJournal):
    """What is said is not kept in the order in which it was."""

    def __init__(self) -> None:
        super().__init__()
        self._sessions = self.sessions = _Sorted()


@mutant("C34")
class SessionsAreReadAnew(ReplaySteps):
    """A run that is taken up reads its session again."""

    async def run(self, scope: Any, call: StepCall) -> Any:
        replayed = not self.records.recorded.exhausted(scope)
        value = await super().run(scope, call)
        return await call.fn(*call.args) if replayed and call.key == "load-history" else value


class _OtherLines(MemoryJournal):
    mode: str

    @cached_property
    def admission(self) -> Any:
        def change(plan: Any) -> Any:
            return replace(plan, line=None) if plan.line is not None and plan.line.mode == self.mode else plan

        return _ByOtherPlans(self, self.flow, change)


@mutant("C34")
class MessagesDoNotWait(_OtherLines):
    """A message that its agent lets wait is answered beside the live run."""

    mode = "queue"


@mutant("C34")
class MessagesCancelNobody(_OtherLines):
    """A message that should cancel the live run is answered beside it."""

    mode = "cancel"


@mutant("C34")
class UnfinishedRunsAreUnsaid(MemoryJournal):
    """What was said in a run that failed or was cancelled is taken back."""

    def set_status(self, run_id: str, status: RunStatus, ended_at: float) -> None:
        super().set_status(run_id, status, ended_at)
        if status in (RunStatus.FAILED, RunStatus.CANCELLED):
            for appends in self._sessions._appends.values():
                del appends[-1:]


@mutant("C34")
class ChangedSessionsAreTaken(ReplaySteps):
    """A run whose session was changed goes on with what is there now."""

    async def run(self, scope: Any, call: StepCall) -> Any:
        replayed = not self.records.recorded.exhausted(scope)
        value = await super().run(scope, call)
        if not replayed or call.key != "load-history":
            return value
        now = await call.fn(*call.args)
        return now if now.appends <= value.appends else value


@mutant("C34")
class AgentsThatCannotWaitAreTaken(MemoryBackend):
    """An engine whose runs cannot wait for each other takes agents whose messages do, and says nothing."""

    capabilities = without(MemoryBackend.capabilities, "singleton_queue")

    def check_rules(self, function: Function[Any, Any]) -> None:
        return
