"""Running the functions of a backend over a connection to Inngest, without an address of one's own."""

from __future__ import annotations

from typing import Any

try:
    import inngest.connect
except ImportError as error:
    raise ImportError("connect needs its packages: pip install 'durably[inngest]' 'inngest[connect]'") from error

from durably.backends.inngest.backend import InngestBackend

__all__ = ["connect"]


def connect(backend: InngestBackend, **options: Any) -> Any:
    """A worker of a backend's functions; ``await worker.start()`` runs it.

    Args:
        backend: What to run. It need not be entered with ``async with``.
        options: Passed to the SDK's own ``connect`` as they are, such as ``instance_id``.
    """
    return inngest.connect.connect([(backend.client, backend.inngest_functions)], **options)
