"""An OPA server as the policy engine, through opa-python-client.

The server must run the node's own bundle, since the digest of that bundle goes into every
decision. ``open`` compares the server's modules and data with it, byte for byte and value for
value; where they differ it sends the bundle and compares again. A server that fetches bundles
itself (``bundle.export_bundle``) takes no modules from others: there the comparison alone counts.
After that each answer carries the digest from the server's own data, so that a server that was
restarted or given another bundle is noticed with the next decision, and set right once.

Who may write to the OPA server decides what the node allows. Bind it to the loopback interface
or put TLS and OPA's own authorisation in front of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from opa_client.errors import PolicyNotFoundError, RegoParseError  # type: ignore[import-untyped]
from opa_client.opa_async import AsyncOpaClient  # type: ignore[import-untyped]

from connector.adapters.bundle import Bundle
from connector.errors import ConfigError, Unavailable
from connector.policy import inputs

# An error of a builtin is undefined by default in a server, and an error in the embedded engine.
_STRICT = {"strict-builtin-errors": "true"}
_FAILURES = (aiohttp.ClientError, TimeoutError, OSError, ValueError)
_DIGEST_PATH = "dataspace/bundle"
_ANOTHER = "the OPA server runs another policy bundle"
_HINT = "give it this node's bundle, or restart it empty and let it take policies over its API"


class OpaEngine:
    """``ports.policy.PolicyEngine`` over HTTP. ``timeout_s``: seconds of one request.

    Use ``open`` and ``close`` on the event loop that asks. Raises ``ConfigError`` for a URL that
    is not ``http://host:port`` or ``https://host:port``.
    """

    def __init__(self, bundle: Bundle, url: str, timeout_s: float) -> None:
        parts = urlsplit(url)
        try:
            host, port = parts.hostname, parts.port or 8181
        except ValueError as error:
            raise ConfigError("policy.opa_url: not a URL with a valid port") from error
        extra = parts.query or parts.fragment or parts.username or parts.path.strip("/")
        if parts.scheme not in ("http", "https") or not host or extra:
            raise ConfigError("policy.opa_url: must be http://host:port or https://host:port")
        self._bundle = bundle
        self._client = AsyncOpaClient(
            host=f"[{host}]" if ":" in host else host,
            port=port,
            ssl=parts.scheme == "https",
            retries=0,  # a retry hides an error of the policy behind a delay
            timeout=timeout_s,
        )
        self._setting = asyncio.Lock()

    @property
    def digest(self) -> bytes:
        return self._bundle.digest

    async def open(self) -> None:
        """Connect and see to it that the server runs our bundle.

        Raises ``Unavailable`` if it cannot be reached or runs another one that it keeps.
        """
        await self._client.__aenter__()
        try:
            await self._set()
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        await self._client.close_connection()

    async def evaluate(self, entry: str, document: Mapping[str, Any]) -> Any:
        """Raises ``Unavailable`` as the port says, and ``InvalidInput`` for a document that is
        not plain, small and shallow."""
        inputs.encode(document)
        answer = await self._ask(entry, document)
        if not self._is_ours(answer):
            await self._set()
            answer = await self._ask(entry, document)
        if not self._is_ours(answer) or "decision" not in answer:
            raise Unavailable("the OPA server gave no decision of this node's policy bundle")
        return answer["decision"]

    async def _ask(self, entry: str, document: Mapping[str, Any]) -> Any:
        """``dataspace/usage/decision`` is asked for as ``dataspace/answer/usage``, which adds the
        digest of the server's bundle."""
        package, _, rule = entry.rpartition("/")
        root, _, name = package.rpartition("/")
        if rule != "decision" or not name.isidentifier() or not root.isidentifier():
            raise Unavailable("the policy has no such decision")
        try:
            body = await self._client.query_rule(
                dict(document), f"{root}/answer", name, query_params=_STRICT
            )
        except _FAILURES as error:
            raise Unavailable("the OPA server gave no answer") from error
        return body.get("result") if isinstance(body, dict) else None

    def _is_ours(self, answer: Any) -> bool:
        return isinstance(answer, dict) and answer.get("bundle") == self._bundle.digest.hex()

    async def _set(self) -> None:
        async with self._setting:
            try:
                if not await self._runs_ours():
                    await self._send()
                    if not await self._runs_ours():
                        raise Unavailable(_ANOTHER, hint=_HINT)
            except (RegoParseError, PolicyNotFoundError) as error:
                raise Unavailable(_ANOTHER, hint=_HINT) from error
            except _FAILURES as error:
                raise Unavailable("the OPA server cannot be reached or does not answer") from error

    async def _runs_ours(self) -> bool:
        """All of our modules and data, and no other module in our packages' tree."""
        modules = {}
        for name in await self._client.get_policies_list():
            policy = (await self._client.get_policy(quote(name, safe="")))["result"]
            path = [str(part.get("value")) for part in policy["ast"]["package"]["path"]]
            if path[:2] == ["data", "dataspace"]:
                modules[name.rpartition("/")[2]] = policy["raw"]
        if modules != dict(self._bundle.modules):
            return False
        return all([await self._data(key) == value for key, value in self._parts()])

    def _parts(self) -> list[tuple[str, Any]]:
        """Our data by the path it is kept under; the digest last, so that it appears only where
        all the rest is in place."""
        rest = [(key, value) for key, value in self._bundle.data.items() if key != "dataspace"]
        return [*rest, (_DIGEST_PATH, self._bundle.data["dataspace"]["bundle"])]

    async def _data(self, path: str) -> Any:
        try:
            return (await self._client.get_data(path))["result"]
        except PolicyNotFoundError:
            return None

    async def _send(self) -> None:
        await self._client.update_or_create_data({"digest": ""}, _DIGEST_PATH)
        waiting = dict(self._bundle.modules)
        while waiting:
            waiting = await self._send_modules(waiting)
        for path, value in self._parts():
            await self._client.update_or_create_data(value, path)

    async def _send_modules(self, modules: Mapping[str, str]) -> dict[str, str]:
        """Those that the server did not take yet: it takes none before the ones that it uses."""
        refused = {}
        for name, text in modules.items():
            try:
                await self._client.update_policy_from_string(text, name, rego_compat=False)
            except RegoParseError as error:
                refused[name] = text
                if len(refused) == len(modules):
                    raise Unavailable(_ANOTHER, hint=_HINT) from error
        return refused
