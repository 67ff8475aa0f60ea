"""How random programs are drawn where each of them takes real time: few, and the same ones each time."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings

__all__ = ["FEW"]

FEW = settings(
    deadline=None,
    database=None,
    derandomize=True,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
