"""The Dataspace Protocol's door on the node's own certificate of the space."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta

import httpx

from connector.adapters.keys import KeyFolder
from connector.identity.certificates import (
    chain_pem,
    issue_member_certificate,
    make_authority,
    make_csr,
)
from connector.model.participant import host_label
from connector.transport.http.server import HttpDoor
from connector.transport.http.tls import ServerTls
from tests.dsp_doors import opened
from tests.negotiators import AIRPORT, TOURISM


async def test_the_space_s_certificate_is_served_and_renewed(tmp_path, socket_enabled):
    keys = KeyFolder(tmp_path / "keys")
    now = datetime.now(UTC)
    authority = make_authority(keys.authority_key(), "space", now)

    def enrol(days: int) -> None:
        chain = issue_member_certificate(
            authority,
            keys.authority_key(),
            make_csr(keys.tls_key()),
            did=AIRPORT,
            name="Airport",
            now=now,
            days=days,
        )
        keys.save_chain(chain)

    enrol(1)
    tls = ServerTls(*keys.tls_paths())
    trusted = ssl.create_default_context(cadata=chain_pem(authority).decode())

    async def asked(did: str) -> datetime:
        """When the certificate ends that a member sees who expects ``did`` there."""
        async with httpx.AsyncClient(verify=trusted) as client:
            response = await client.get(
                f"https://{address}/.well-known/dspace-version",
                extensions={"sni_hostname": host_label(did)},
            )
            assert response.status_code == 200
            connection = response.extensions["network_stream"].get_extra_info("ssl_object")
            ends = ssl.cert_time_to_seconds(connection.getpeercert()["notAfter"])
            return datetime.fromtimestamp(ends, UTC)

    async with opened() as place:
        door = HttpDoor(place.app, "127.0.0.1:0", tls, setting="dsp.listen")
        address = await door.open()
        try:
            assert await asked(AIRPORT) < now + timedelta(days=2)
            enrol(5)
            assert tls.refresh()
            assert await asked(AIRPORT) > now + timedelta(days=4)
            try:
                await asked(TOURISM)
            except httpx.ConnectError:
                pass
            else:
                raise AssertionError("another member's name was accepted")
        finally:
            await door.close()
