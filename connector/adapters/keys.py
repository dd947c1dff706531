"""Keys and certificates of a node, as files in its data folder's ``keys``.

The folder has mode 0700 and every file 0600; anything that others could read or write, that is
not ours or is a symbolic link is refused, not repaired: a key that others could read must be taken
for known. A file appears whole or not at all, and a private key never replaces one that is there.
Secrets that are no keys are kept so too, in other folders.

====================  ====================================================================
file                  holds
====================  ====================================================================
signing.pem           Ed25519 private key (PKCS#8): statements, tokens, checkpoints
tls.pem               P-256 private key (PKCS#8): TLS
authority.pem         P-256 private key (PKCS#8) of the space's CA; on the directory only
authority.crt         the CA's certificate; on the directory only
reporting.pem         P-256 private key (PKCS#8) of the reporters' door
reporting.crt         the certificate of the reporters' door
certificate.pem       our TLS certificate, then the CA's
credential.jwt        our membership credential
space.json            the space that we belong to, with its key and CA
====================  ====================================================================
"""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

from connector.errors import ConfigError, Unavailable
from connector.identity.certificates import make_tls_key
from connector.identity.invitations import Space, parse_space, space_json
from connector.model import fields

MAX_FILE_BYTES = 65_536
MIN_SECRET = 32  # characters
NodeKey: TypeAlias = Ed25519PrivateKey | ec.EllipticCurvePrivateKey


class KeyFolder:
    """Every method raises ``ConfigError`` for a file or folder that is refused, with what to do
    about it, and ``Unavailable`` if the disk refuses."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def signing_key(self) -> Ed25519PrivateKey:
        """Made when it is first asked for."""
        key = self._key("signing.pem", Ed25519PrivateKey.generate)
        if not isinstance(key, Ed25519PrivateKey):
            raise ConfigError(f"{self._folder / 'signing.pem'}: not an Ed25519 key")
        return key

    def tls_key(self) -> ec.EllipticCurvePrivateKey:
        """Made when it is first asked for."""
        return self._p256("tls.pem")

    def authority_key(self) -> ec.EllipticCurvePrivateKey:
        """Of the space's CA; made when it is first asked for."""
        return self._p256("authority.pem")

    def tls_key_pem(self) -> bytes:
        """The TLS key as gRPC takes it."""
        return _encode(self.tls_key())

    def authority_certificate(self) -> bytes | None:
        """PEM, or None."""
        return self._read("authority.crt")

    def save_authority_certificate(self, pem: bytes) -> None:
        self._write("authority.crt", pem, replace=True)

    def reporting_key(self) -> ec.EllipticCurvePrivateKey:
        """Of the reporters' door; made when it is first asked for."""
        return self._p256("reporting.pem")

    def reporting_key_pem(self) -> bytes:
        """The same as gRPC takes it."""
        return _encode(self.reporting_key())

    def reporting_certificate(self) -> bytes | None:
        """PEM, or None before there was a reporters' door."""
        return self._read("reporting.crt")

    def save_reporting_certificate(self, pem: bytes) -> None:
        self._write("reporting.crt", pem, replace=True)

    def chain(self) -> bytes | None:
        """PEM, or None before enrolment."""
        return self._read("certificate.pem")

    def save_chain(self, pem: bytes) -> None:
        self._write("certificate.pem", pem, replace=True)

    def tls_paths(self) -> tuple[Path, Path]:
        """Certificate and key of this node in its space, for who reads them itself."""
        return self._folder / "certificate.pem", self._folder / "tls.pem"

    def credential(self) -> str | None:
        """A JWT, or None before enrolment."""
        found = self._read("credential.jwt")
        return None if found is None else found.decode("ascii", "replace")

    def save_credential(self, credential: str) -> None:
        self._write("credential.jwt", credential.encode(), replace=True)

    def space(self) -> Space | None:
        """None before enrolment. Raises ``InvalidInput`` too."""
        found = self._read("space.json")
        if found is None:
            return None
        return parse_space(fields.as_object(fields.parse_json(found, what="space.json"), "space"))

    def save_space(self, space: Space) -> None:
        self._write("space.json", fields.encode_json(space_json(space)), replace=True)

    def secret(self, name: str) -> str:
        """A secret of at least ``MIN_SECRET`` visible ASCII characters, in a file of this name;
        made when it is first asked for."""
        found = self._read(name)
        if found is None:
            self._write(name, f"{secrets.token_urlsafe(32)}\n".encode(), replace=False)
            found = self._read(name) or b""
        text = found.decode("ascii", "replace").strip()
        if len(text) < MIN_SECRET or not all("!" <= one <= "~" for one in text):
            raise ConfigError(
                f"{self._folder / name}: not a secret of {MIN_SECRET} or more visible characters",
                hint="remove the file, and the node makes one",
            )
        return text

    def _p256(self, name: str) -> ec.EllipticCurvePrivateKey:
        key = self._key(name, make_tls_key)
        if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != "secp256r1":
            raise ConfigError(f"{self._folder / name}: not a P-256 key")
        return key

    def _key(self, name: str, make: Callable[[], NodeKey]) -> PrivateKeyTypes:
        found = self._read(name)
        if found is None:
            self._write(name, _encode(make()), replace=False)
            found = self._read(name) or b""  # ours, or that of whoever was quicker
        try:
            return serialization.load_pem_private_key(found, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{self._folder / name}: not a private key in PEM") from error

    def _read(self, name: str) -> bytes | None:
        """The content of a file that only we can read, or None if there is none."""
        self._check_folder()
        path = self._folder / name
        try:
            handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if path.is_symlink():
                raise ConfigError(
                    f"{path} is a symbolic link", hint="put the file itself there"
                ) from error
            raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
        with os.fdopen(handle, "rb") as file:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{path} is not a file")
            _check_private(path, status)
            content = file.read(MAX_FILE_BYTES + 1)
        if len(content) > MAX_FILE_BYTES:
            raise ConfigError(f"{path} is larger than {MAX_FILE_BYTES} bytes")
        return content

    def _write(self, name: str, content: bytes, *, replace: bool) -> None:
        """Durable on return. Without ``replace``, a file that is there stays as it is."""
        self._check_folder()
        target = self._folder / name
        draft = self._folder / f".{name}.{secrets.token_hex(8)}"
        try:
            handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(handle, "wb") as file:
                    os.fchmod(handle, 0o600)
                    file.write(content)
                    file.flush()
                    os.fsync(handle)
                if replace:
                    draft.replace(target)
                else:
                    with contextlib.suppress(FileExistsError):
                        target.hardlink_to(draft)
            finally:
                draft.unlink(missing_ok=True)
            _sync_folder(self._folder)
        except OSError as error:
            raise Unavailable(f"{target} cannot be written: {error.strerror}") from error

    def _check_folder(self) -> None:
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            status = self._folder.lstat()
        except OSError as error:
            raise ConfigError(f"{self._folder} cannot be used: {error.strerror}") from error
        if not stat.S_ISDIR(status.st_mode):
            raise ConfigError(f"{self._folder} is not a folder", hint="symbolic links do not count")
        _check_private(self._folder, status)


def _check_private(path: Path, status: os.stat_result) -> None:
    if status.st_uid != os.geteuid():
        raise ConfigError(
            f"{path} belongs to another user", hint=f"chown {os.geteuid()} '{path}' if it is yours"
        )
    if status.st_mode & 0o077:
        raise ConfigError(
            f"{path} can be reached by others than its owner",
            hint=f"chmod go= '{path}', and replace the key if others may have read it",
        )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _encode(key: NodeKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
