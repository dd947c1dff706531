"""The policy engine: one question, one answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class PolicyEngine(Protocol):
    """Evaluates the loaded policy bundle. Two implementations give identical answers: the
    embedded interpreter and an OPA server."""

    @property
    def digest(self) -> bytes:
        """SHA-256 (32 bytes) of the policy bundle that answers."""
        ...

    async def evaluate(self, entry: str, document: Mapping[str, Any]) -> Any:
        """The value of the rule ``entry`` (``dataspace/usage/decision``) for this input.

        Raises ``Unavailable`` if there is no answer: an error in the policy, an undefined rule,
        a timeout; and ``InvalidInput`` for a document that is too large, too deep or not plain
        JSON. The caller refuses then. Stateless; calls may overlap.
        """
        ...
