"""Who may come in at the port of the management API, by the host that a request names."""

import pytest
from starlette.datastructures import Headers

from connector.app.management import entry_of
from connector.errors import Refused

TOKEN = "t" * 32


@pytest.mark.parametrize(
    "address", ["127.0.0.1:9090", "127.8.8.8:9090", "[::1]:9090", "localhost:1"]
)
def test_a_door_on_loopback_is_called_by_its_own_names(address: str) -> None:
    entry = entry_of(address, TOKEN)
    known = {"authorization": f"Bearer {TOKEN}"}
    for host in (address, "localhost:9090", "127.0.0.1"):
        entry.check(Headers({"host": host, **known}))
    for host in ("rebound.example", "127.9.9.9:9090", ""):
        with pytest.raises(Refused, match="host"):
            entry.check(Headers({"host": host, **known}))


def test_elsewhere_the_certificate_says_the_names() -> None:
    headers = Headers({"host": "node.example", "authorization": f"Bearer {TOKEN}"})
    entry_of("0.0.0.0:9090", TOKEN).check(headers)
