"""The policy engine that the configuration asks for."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from connector.adapters.bundle import load_bundle
from connector.adapters.opa import OpaEngine
from connector.adapters.rego import RegoEngine
from connector.config import Policy
from connector.ports.policy import PolicyEngine


@asynccontextmanager
async def open_engine(policy: Policy) -> AsyncIterator[PolicyEngine]:
    """Raises ``ConfigError`` for a bundle that does not load, ``Unavailable`` for no OPA."""
    bundle = load_bundle(Path(policy.bundle) if policy.bundle else None)
    if policy.engine == "embedded":
        yield RegoEngine(bundle)
        return
    engine = OpaEngine(bundle, policy.opa_url, policy.timeout_s)
    await engine.open()
    try:
        yield engine
    finally:
        await engine.close()
