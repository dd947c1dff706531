"""Where a URL that somebody else chose may lead: its strict form, and the addresses behind it.

A callbackAddress (DSP 2025-1, HTTPS binding), the service of a DID document and the endpoint of a
dataAddress are written by a peer, and this node sits where the peer does not: beside its owner's
databases and its cloud's metadata service. So such a URL has one plain form, and after its name is
resolved every address that is not of the public internet is dropped (the registries of RFC 6890),
unless the operator allows its network or its name (``[dsp] allow``).

Decides only. ``outgoing`` resolves, and connects to exactly the addresses that were decided on.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TypeAlias
from urllib.parse import urlsplit

from connector.errors import InvalidInput

MAX_URL = 2048

Address: TypeAlias = IPv4Address | IPv6Address
Network: TypeAlias = IPv4Network | IPv6Network

_LABEL = r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL}){{0,126}}")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # a last label by which resolvers read a number
_PORTS = {"http": 80, "https": 443}

# IANA's special-purpose address registries, and what clouds put at public addresses.
_NEVER = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "168.63.129.16/32",  # Azure's host
        "169.254.0.0/16",  # link-local, with the metadata services of most clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "2001::/23",  # Teredo among them
        "2001:db8::/32",
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",
    )
)
_UNICAST = IPv6Network("2000::/3")  # of IPv6 nothing else is public, NAT64 aside
_NAT64 = IPv6Network("64:ff9b::/96")
# What a name on the allow-list does not open: no service of one's own is there.
_NOT_BY_NAME = tuple(
    ip_network(each)
    for each in (
        "0.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/3",
        "::/128",
        "fd00:ec2::/32",  # metadata, as
        "fd20:ce::/32",  # is this
        "fe80::/10",
        "ff00::/8",
    )
)


class NotAllowed(InvalidInput):
    """The URL leads where this node does not send."""

    code = "address_not_allowed"


@dataclass(frozen=True, slots=True)
class Target:
    """A URL in parts; ``host`` is a lower-case DNS name or an address without brackets, ``path``
    what a request is for, with the query if there is one."""

    url: str
    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> tuple[str, str, int]:
        """RFC 6454: what a token may be sent to."""
        return (self.scheme, self.host, self.port)

    @property
    def authority(self) -> str:
        """For ``Host`` (RFC 9110 section 7.2)."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(value: str, what: str = "URL", *, query: bool = False) -> Target:
    """``https://host[:port][/path]``, or with ``http``; ``query``: one is taken too.

    No user, no fragment, no escapes or zone in the host, and an address in its one spelling only.
    Raises ``InvalidInput``.
    """
    if len(value) > MAX_URL or not re.fullmatch(r"[!-~]+", value) or "\\" in value:
        raise InvalidInput(f"{what}: must be printable ASCII of at most {MAX_URL} characters")
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise InvalidInput(f"{what}: not a URL") from error
    if parts.scheme not in _PORTS:
        raise InvalidInput(f"{what}: must begin with https://")
    if "@" in parts.netloc or "#" in value or ("?" in value and not query):
        raise InvalidInput(f"{what}: must have no user, no fragment and no query")
    if port == 0 or parts.netloc.endswith(":"):
        raise InvalidInput(f"{what}: not a port")
    host = _host(parts.hostname or "", bracketed="[" in parts.netloc)
    if not host:
        raise InvalidInput(f"{what}: must name a host, by a DNS name or a plain address")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(value, parts.scheme, host, port or _PORTS[parts.scheme], path)


def _host(value: str, *, bracketed: bool) -> str:
    """Empty if it is none. What a resolver would read as a number is an address or nothing."""
    if bracketed or _NUMBER.fullmatch(value.rpartition(".")[2]):
        try:
            address = ip_address(value)
        except ValueError:
            return ""
        one = str(address) == value and "%" not in value
        return value if one and (address.version == 6) is bracketed else ""
    return value if len(value) <= 253 and _NAME.fullmatch(value) else ""


def is_public(address: Address) -> bool:
    """Whether it is an address of the public internet that is one machine's."""
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            return False
        if address in _NAT64:
            return is_public(IPv4Address(int(address) & 0xFFFF_FFFF))
        if address not in _UNICAST:  # loopback, mapped IPv4, unique local, link-local, multicast
            return False
    return not _within(address, _NEVER)


@dataclass(frozen=True, slots=True)
class Allowed:
    """What the operator allows besides the public internet."""

    networks: tuple[Network, ...] = ()
    names: frozenset[str] = frozenset()

    @classmethod
    def parse(cls, items: Iterable[str]) -> Allowed:
        """Networks (``10.1.0.0/16``), addresses and host names. Raises ``InvalidInput``."""
        networks: list[Network] = []
        names: set[str] = set()
        for item in items:
            try:
                networks.append(ip_network(item))
            except ValueError as error:
                name = _host(item.lower(), bracketed=False)
                if not name or "/" in item:
                    raise InvalidInput(f"not a network or a host name: {item[:60]}") from error
                names.add(name)
        return cls(tuple(networks), frozenset(names))

    def admits(self, address: Address, host: str, *, plain: bool = False) -> bool:
        """Whether ``address``, to which ``host`` resolved, may be connected to.

        ``plain``: without TLS, which is for this machine's loopback alone, and only if allowed.
        """
        if isinstance(address, IPv6Address) and address.scope_id is not None:
            return False
        named = host in self.names and not _within(address, _NOT_BY_NAME)
        allowed = named or _within(address, self.networks)
        if plain:
            return allowed and address.is_loopback
        return allowed or is_public(address)


def _within(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == each.version and address in each for each in networks)
