"""Crash tests for agents of other libraries: a program that is started, killed with SIGKILL, and resumed.

Nothing of ``durably`` runs in such an agent but what looks on. It is judged by what can be seen from outside: its
answer, its world, how often its tools ran, and what it told its model.
"""

from __future__ import annotations

from durably.testing.foreign.matrix import foreign_matrix
from durably.testing.foreign.watch import inside, model_asked, watched

__all__ = ["foreign_matrix", "inside", "model_asked", "watched"]
