"""Deterministic tests for agents: a scripted model, and crashes at every point."""

from durably.testing.scripted import ScriptedModel, call

__all__ = ["ScriptedModel", "call"]
