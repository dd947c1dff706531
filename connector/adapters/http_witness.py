"""``ports.witnesses.WitnessPeer`` over HTTPS, with httpx.

Nothing is followed and nothing is taken that is larger or later than it may be: a witness is
somebody else's machine. Certificates are checked against the system's store (or ``SSL_CERT_FILE``).
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import Sequence
from http.cookiejar import CookieJar, DefaultCookiePolicy

import httpx

from connector.errors import (
    InvalidInput,
    NotFound,
    PeerFault,
    RateLimited,
    Unavailable,
    VerificationFailed,
)
from connector.metering.witness import StaleSize
from connector.tlog.note import MAX_NOTE_BYTES, Signature
from connector.tlog.witness import (
    MAX_ANSWER_BYTES,
    CheckpointRequest,
    encode_request,
    parse_cosignatures,
    parse_size,
)

TIMEOUT_S = 10.0  # seconds for one request, answer included
_SMALL = 1024  # bytes of an answer that is a number or a reason


class HttpWitness:
    """The witness with the submission prefix ``url``, which is also read as the monitors' prefix.

    One connection is kept open between requests.
    """

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        self._url = url.rstrip("/")
        self._timeout = timeout_s
        self._client = httpx.AsyncClient(
            verify=ssl.create_default_context(),
            follow_redirects=False,
            trust_env=False,
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=2, max_keepalive_connections=1),
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # none is kept
            headers={"User-Agent": "tds-connector", "Accept-Encoding": "identity"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def add_checkpoint(self, request: CheckpointRequest) -> Sequence[Signature]:
        status, body = await self._ask(
            "POST", "/add-checkpoint", MAX_ANSWER_BYTES, encode_request(request)
        )
        try:
            if status == 200:
                return parse_cosignatures(body)
            if status == 409:
                raise StaleSize(parse_size(body.removesuffix(b"\n")))
        except InvalidInput as error:
            raise PeerFault("the witness's answer is none") from error
        raise _refusal(status)

    async def last(self, origin: str) -> bytes:
        name = hashlib.sha256(origin.encode()).hexdigest()
        status, body = await self._ask("GET", f"/{name}/checkpoint", MAX_NOTE_BYTES)
        if status == 404:
            raise NotFound("the witness shows no checkpoint of this log")
        if status != 200:
            raise _refusal(status)
        return body

    async def _ask(
        self, method: str, path: str, limit: int, content: bytes | None = None
    ) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(self._timeout):
                call = self._client.stream(method, self._url + path, content=content)
                async with call as answer:
                    most = limit if answer.status_code == 200 else _SMALL
                    body = bytearray()
                    async for piece in answer.aiter_raw():
                        body += piece
                        if len(body) > most:
                            raise PeerFault("the witness's answer is too large")
                    return answer.status_code, bytes(body)
        except (httpx.HTTPError, OSError, TimeoutError) as error:
            raise Unavailable("the witness does not answer") from error


def _refusal(status: int) -> PeerFault | RateLimited | Unavailable:
    if status == 422:
        return VerificationFailed("the witness finds the log not consistent with what it saw")
    if status == 429:
        return RateLimited("the witness asks for patience")
    if status >= 500:
        return Unavailable(f"the witness answers with {status}")
    reasons = {
        403: "the witness does not know this log's key",
        404: "the witness does not know this log",
    }
    return PeerFault(reasons.get(status, f"the witness answers with {status}"))
