"""A node's log as others see it: over HTTPS, cosigned by a counterparty, exported and verified."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from connector.adapters.clock import SystemClock
from connector.client.log import connect_log
from connector.tlog import merkle, tiles
from connector.tlog.checkpoint import parse_checkpoint
from tests.e2e.space import START_S, Contract, connector, contract

pytestmark = pytest.mark.e2e

DAY = timedelta(days=1)


def self_signed(folder: Path) -> tuple[Path, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = SystemClock().now()
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem, secret = folder / "door.pem", folder / "door.key"
    pem.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, *form))
    return pem, secret


async def configured(place: Contract, name: str, top: str, tables: str = "") -> None:
    """The node again, with more in its configuration."""
    member = place.space.members[name]
    path = member.data / "connector.toml"
    await asyncio.to_thread(member.stop)
    written = path.read_text().replace("[https]\n", "")
    path.write_text(f"{top}\n{written}\n{tables}\n")
    member.start()
    await place.space.until(name, lambda status: status.state == "ready")


async def _cosigned(url: str, client: httpx.AsyncClient, name: str) -> None:
    """Until the metrics tell that there is a cosignature by ``name``."""
    wanted = f'tds_witness_cosignature_age_seconds{{witness="{name}"}} '
    for _ in range(int(START_S / 0.1)):
        lines = (await client.get(f"{url}/metrics")).text.splitlines()
        ages = [line.removeprefix(wanted) for line in lines if line.startswith(wanted)]
        if ages and ages[0] != "+Inf":
            return
        await asyncio.sleep(0.1)
    raise AssertionError(f"{name} did not cosign")


async def test_the_log_of_a_running_node(tmp_path: Path) -> None:
    async with contract(tmp_path) as place:
        provider, consumer = (place.space.members[name] for name in ("provider", "consumer"))
        for _ in range(3):
            await place.ask()
        keys = {
            one.data: connector("log", "keys", "--data", one.data) for one in (provider, consumer)
        }
        ours, theirs = keys[provider.data], keys[consumer.data]
        pem, secret = self_signed(tmp_path)
        await configured(place, "consumer", f'witness_for = ["{ours["log"]}"]')
        await configured(
            place,
            "provider",
            "",
            f'[https]\ncertificate = "{pem}"\nkey = "{secret}"\n'
            f'[[witness]]\nurl = "http://{consumer.http}"\nvkey = "{theirs["witness"]}"\n',
        )
        await place.ask()
        url = f"https://localhost:{provider.http.rpartition(':')[2]}"
        trust = ssl.create_default_context(cafile=str(pem))
        async with httpx.AsyncClient(verify=trust) as client:
            await _cosigned(url, client, "consumer.example/log")
            await _bundles(place, client, url)
        await _exported(place, tmp_path, ours["log"], theirs["witness"])
        doctor = connector("doctor", "--data", provider.data)
        assert "witness consumer.example/log" in {one["name"] for one in doctor["checks"]}


async def _bundles(place: Contract, client: httpx.AsyncClient, url: str) -> None:
    """An auditor with a grant, and a member without one."""
    data = place.space.members["provider"].data
    size = parse_checkpoint((await client.get(f"{url}/checkpoint")).content).size
    path = f"{url}/{tiles.Tile(None, 0, size).path()}"
    assert (await client.get(path)).status_code == 401
    made = connector("log", "grant", "--to", "an auditor", "--days", "3", "--data", data)
    headers = {"Authorization": f"Bearer {made['token']}"}
    answer = await client.get(path, headers=headers)
    assert answer.status_code == 200
    leaves = tiles.parse_bundle(answer.content, size)
    hashed = (await client.get(f"{url}/{tiles.Tile(0, 0, size).path()}")).content
    assert b"".join(map(merkle.leaf_hash, leaves)) == hashed
    assert [one["name"] for one in connector("log", "grants", "--data", data)["grants"]] == [
        "an auditor"
    ]
    connector("log", "revoke", "an auditor", "--data", data)
    assert (await client.get(path, headers=headers)).status_code == 401
    async with connect_log(place.space.members["consumer"].data) as log:
        own = {"Authorization": f"Bearer {await log.token('did:web:provider.example')}"}
    answer = await client.get(path, headers=own)
    assert answer.status_code in (200, 403), "all the receipts may be of its agreement"
    assert (await client.get(path, headers=own)).status_code == 401


async def _exported(place: Contract, folder: Path, vkey: str, witness: str) -> None:
    data = place.space.members["provider"].data
    out = folder / "archive"
    for _ in range(100):  # the newest cosigned one may be the directory's alone
        done = connector("log", "export", out, "--data", data)
        if b"consumer.example/log" in (out / "checkpoint").read_bytes():
            break
        await place.ask()
        await asyncio.sleep(1.5)
    assert done["size"] >= 4
    command = [str(Path(sys.executable).with_name("connector-verify")), "log", str(out)]
    checked = await asyncio.to_thread(
        subprocess.run,
        [*command, "--vkey", vkey, "--witness", witness],
        capture_output=True,
        check=False,
    )
    assert checked.returncode == 0, (checked.stdout + checked.stderr).decode()
