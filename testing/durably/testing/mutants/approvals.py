"""Mutants of C31: answers of people that are lost, doubled, or not looked at."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from durably.backends.memory import MemoryBackend
from durably.backends.replay.steps import ReplaySteps
from durably.core import ApprovalDecision, Event, PendingApproval
from durably.core.approval import approve
from durably.core.approval_desk import request_id
from durably.core.attempts import StepCall, run_step
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


@mutant("C31")
class EditedArgumentsUnchecked(MemoryBackend):
    """Arguments that a person wrote are handed over as they are."""

    async def approve(self, approval: Any, *, by: str | None = None, arguments: Any = None) -> ApprovalDecision:
        if arguments is None:
            return await super().approve(approval, by=by)
        event = approve(request_id(approval), by=by, arguments=arguments)
        await self.send_events([event])
        return ApprovalDecision.model_validate(event.data)


@mutant("C31")
class EditedArgumentsForgotten(ReplaySteps):
    """A tool runs with what the model asked for, whatever a person wrote."""

    async def wait_for_event(
        self, scope: Any, key: str, name: str, match: dict[str, Any], timeout: float | None
    ) -> Event | None:
        event = await super().wait_for_event(scope, key, name, match, timeout)
        if event is not None and isinstance(event.data, dict):
            event.data.pop("arguments", None)
        return event


@mutant("C31")
class SecondAnswerTaken(MemoryBackend):
    """Whoever answers second is told that all is well."""

    async def received(self, event: Event) -> Event | None:
        return event if event.data.get("token") else None


@mutant("C31")
class AnswersToNothingTaken(MemoryBackend):
    """An answer is taken whether or not anybody asked."""

    async def approve(self, approval: Any, *, by: str | None = None, arguments: Any = None) -> ApprovalDecision:
        pending = {each.id for each in await self.approvals()}
        if request_id(approval) in pending:
            return await super().approve(approval, by=by, arguments=arguments)
        return ApprovalDecision(approval=request_id(approval), approved=True, by=by)


@mutant("C31")
class PendingForEver(MemoryBackend):
    """What was answered is still listed."""

    async def approvals(self, **options: Any) -> list[PendingApproval]:
        found = await super().approvals(**options)
        seen: dict[str, PendingApproval] = vars(self).setdefault("seen", {})
        seen.update({each.id: each for each in found})
        return list(seen.values())


@mutant("C31")
class ApprovalJudgedAgain(ReplaySteps):
    """Whether a person is asked is decided anew on each replay."""

    async def run(self, scope: Any, call: StepCall) -> Any:
        value = await super().run(scope, call)
        if "request-" in call.key and self.is_replaying(scope):
            await run_step(call, self.host.environment, function=self.function.id, run_id=self.run_id, attempt=1)
        return value


@mutant("C31")
class ArgumentsUnlisted(MemoryBackend):
    """What is pending is listed without its arguments."""

    async def approvals(self, **options: Any) -> list[PendingApproval]:
        return [replace(each, arguments={}) for each in await super().approvals(**options)]
