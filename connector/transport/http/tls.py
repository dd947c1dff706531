"""TLS on the HTTP door, with the operator's own certificate of the web's PKI.

The files are looked at again as the door goes on: a renewed certificate is served within
``LOOK_S`` seconds, without a restart. Files that cannot be used leave the one before in place.
"""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import structlog

from connector.errors import ConfigError

LOOK_S = 10.0  # seconds between two looks at the files

log = structlog.get_logger()


class ServerTls:
    """``context`` hands every handshake the newest certificate. Raises ``ConfigError``."""

    def __init__(self, certificate: Path, key: Path) -> None:
        self._certificate = certificate
        self._key = key
        self._seen = self._look()
        try:
            self._newest = self._load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"https: the certificate or its key cannot be used ({_reason(error)})",
                hint="both are PEM files; the chain begins with the door's own certificate",
            ) from error
        self.context = self._load()
        self.context.sni_callback = self._choose  # called at every handshake, with a name or not

    async def watch(self) -> None:
        """Keep up with the files, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> bool:
        """Whether there was something new that can be used."""
        seen = self._look()
        if seen == self._seen:
            return False
        try:
            self._newest = self._load()
        except (OSError, ssl.SSLError) as error:
            log.error("the HTTP door keeps its old certificate", reason=_reason(error))
            return False
        self._seen = seen
        log.info("the HTTP door has a new certificate")
        return True

    def _choose(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
        connection.context = self._newest

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # A key with a passphrase would ask for it on the terminal: refuse instead.
        context.load_cert_chain(self._certificate, self._key, password=lambda: b"")
        return context

    def _look(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for path in (self._certificate, self._key):
            try:
                stat = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)


def _reason(error: OSError) -> str:
    return getattr(error, "reason", None) or error.strerror or type(error).__name__
