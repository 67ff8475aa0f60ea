"""The place of a provider's key. A model holds only the place, and looks the key up in each call."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from pydantic import SecretStr

from durably.core import DefinitionError, current_step

__all__ = ["Key"]


@dataclass(frozen=True, kw_only=True)
class Key:
    """Where the worker finds a key. Give one of the two.

    Args:
        env: The name of an environment variable.
        resource: The name of a resource of the backend. The resource is the key, as ``SecretStr`` (which the backend
            masks wherever it writes) or ``str``; or a client of the provider's own SDK, which is used as it is and is
            not closed.

    Raises:
        DefinitionError: If neither or both are given.
    """

    env: str | None = None
    resource: str | None = None

    def __post_init__(self) -> None:
        if (self.env is None) == (self.resource is None):
            raise DefinitionError(f"{self}: give either env= or resource=")

    def find(self) -> Any:
        """Return the key as ``SecretStr``, or the client.

        Raises:
            LookupError: If there is neither. The error names the place.
        """
        if self.resource is not None:
            return self._from_resource(self.resource)
        secret = os.environ.get(self.env or "")
        if not secret:
            raise LookupError(f"no key: set the environment variable {self.env} on the worker")
        return SecretStr(secret)

    def _from_resource(self, name: str) -> Any:
        try:
            found = current_step().resources[name]
        except KeyError:
            raise LookupError(f"no key: give the backend resources={{{name!r}: SecretStr(...)}}") from None
        except RuntimeError:
            raise LookupError(f"the resource {name!r} is known only inside a step of a backend") from None
        return SecretStr(found) if isinstance(found, str) else found
