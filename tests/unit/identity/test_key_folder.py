"""Key files: made once, never readable by others, never through a link."""

from __future__ import annotations

import os
import stat
import threading
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from connector.adapters.keys import KeyFolder
from connector.errors import ConfigError, InvalidInput
from connector.identity import certificates
from connector.identity.invitations import Space
from connector.identity.statements import public_bytes


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "keys"


def test_keys_are_made_once_and_only_for_us(folder):
    umask = os.umask(0)
    try:
        keys = KeyFolder(folder)
        made = [public_bytes(keys.signing_key()), keys.tls_key_pem(), keys.authority_key()]
    finally:
        os.umask(umask)
    again = KeyFolder(folder)
    assert made[:2] == [public_bytes(again.signing_key()), again.tls_key_pem()]
    assert made[2].public_key() == again.authority_key().public_key()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {file.name for file in folder.iterdir()} == {"signing.pem", "tls.pem", "authority.pem"}
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in folder.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o601, 0o644, 0o666])
def test_a_key_that_others_can_reach_is_refused_with_what_to_do(folder, mode):
    KeyFolder(folder).signing_key()
    (folder / "signing.pem").chmod(mode)
    with pytest.raises(ConfigError) as refusal:
        KeyFolder(folder).signing_key()
    assert "chmod" in refusal.value.hint


@pytest.mark.parametrize("mode", [0o750, 0o701, 0o755])
def test_a_folder_that_others_can_reach_is_refused(folder, mode):
    KeyFolder(folder).signing_key()
    folder.chmod(mode)
    with pytest.raises(ConfigError, match="others"):
        KeyFolder(folder).signing_key()


def test_links_are_refused(folder, tmp_path):
    KeyFolder(tmp_path / "real").signing_key()
    folder.mkdir(mode=0o700)
    (folder / "signing.pem").symlink_to(tmp_path / "real" / "signing.pem")
    with pytest.raises(ConfigError, match="symbolic link"):
        KeyFolder(folder).signing_key()
    (tmp_path / "linked").symlink_to(tmp_path / "real")
    with pytest.raises(ConfigError):
        KeyFolder(tmp_path / "linked").signing_key()


def pem(key):
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


BAD_FILES = {
    "empty": b"",
    "not a key": b"hello",
    "huge": b"x" * 100_000,
    "a public key": Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    "a key with a password": ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"x"),
    ),
    "a key on another curve": pem(ec.generate_private_key(ec.SECP384R1())),
}


@pytest.mark.parametrize("content", BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_file_that_holds_no_such_key_is_refused_and_kept(folder, content):
    KeyFolder(folder).signing_key()
    for name in ("signing.pem", "tls.pem"):
        (folder / name).write_bytes(content)
        (folder / name).chmod(0o600)
    for ask in (KeyFolder(folder).signing_key, KeyFolder(folder).tls_key):
        with pytest.raises(ConfigError):
            ask()
    assert (folder / "signing.pem").read_bytes() == content


def test_a_key_of_the_other_kind_is_refused(folder):
    KeyFolder(folder).signing_key()
    (folder / "signing.pem").rename(folder / "tls.pem")
    with pytest.raises(ConfigError, match="P-256"):
        KeyFolder(folder).tls_key()


def test_two_who_start_at_once_get_the_same_key(folder):
    found, barrier = [], threading.Barrier(8)

    def start():
        barrier.wait()
        found.append(public_bytes(KeyFolder(folder).signing_key()))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8 and len(set(found)) == 1
    assert [file.name for file in folder.iterdir()] == ["signing.pem"]


def test_what_enrolment_brings_is_kept(folder):
    keys = KeyFolder(folder)
    assert (keys.chain(), keys.credential(), keys.space()) == (None, None, None)
    ca = certificates.make_authority(keys.authority_key(), "s", datetime(2026, 1, 1, tzinfo=UTC))
    space = Space(
        "did:web:space.example", b"k" * 32, "a.example:1", "a.example:2", certificates.chain_pem(ca)
    )
    for round_ in range(2):
        keys.save_chain(b"chain%d" % round_)
        keys.save_credential(f"credential{round_}")
        keys.save_space(space)
    again = KeyFolder(folder)
    assert (again.chain(), again.credential(), again.space()) == (b"chain1", "credential1", space)
    (folder / "space.json").write_bytes(b"{}")
    with pytest.raises(InvalidInput):
        again.space()


def test_a_secret_is_made_once_and_only_for_us(folder):
    made = KeyFolder(folder).secret("management.token")
    assert len(made) == 43
    assert KeyFolder(folder).secret("management.token") == made
    (path,) = folder.iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    with pytest.raises(ConfigError, match="others"):
        KeyFolder(folder).secret("management.token")


@pytest.mark.parametrize("held", ["", "short\n", "x" * 31, "x" * 31 + " y", "\u00e9" * 40])
def test_a_secret_that_can_be_guessed_is_refused(folder, held):
    KeyFolder(folder).secret("token")
    (folder / "token").write_text(held)
    with pytest.raises(ConfigError, match="not a secret"):
        KeyFolder(folder).secret("token")
