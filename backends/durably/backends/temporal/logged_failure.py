"""Failures of steps that stand in the log already, so that Temporal's SDK need not write them there again."""

from __future__ import annotations

import logging

from temporalio.exceptions import ApplicationError

__all__ = ["LoggedFailure", "silence_sdk"]


class LoggedFailure(ApplicationError):  # noqa: N818  # a message to Temporal, not an error of ours
    """The failure of an attempt that was logged with its cause."""


class _Once(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
        return not isinstance(error, LoggedFailure)


_once = _Once()


def silence_sdk() -> None:
    """Keep the SDK from logging such failures; may be called again."""
    logging.getLogger("temporalio.activity").addFilter(_once)
