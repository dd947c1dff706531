"""This node's catalogue over HTTPS (DSP 2025-1, "Catalog HTTPS Binding").

Pages are linked by ``Link`` headers (RFC 8288) with the relations ``next`` and ``previous``; a link
is followed with the same POST, or a GET. What a link holds is no secret and no permission: the
question, and a place in the list, within limits that are checked.

A ``filter`` is a list of at most one each of

* ``{"text": "words"}``: words in title, description or keywords (Chinese and English);
* ``{"keyword": "words"}``: words in the keywords;
* ``{"id": "…"}``: the one dataset;

and all of them must hold. The ``QuerySpec`` that Eclipse connectors send with every request is
taken where it asks for nothing in particular. Anything else is refused, as the text has it.

Left out: compression; catalogues of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.responses import Response

from connector.errors import ConnectorError, InvalidInput, NotFound
from connector.model import fields
from connector.model.catalog import dataset_json
from connector.model.participant import b64url, unb64url
from connector.ports.datasets import DatasetStore, Listed, Wanted
from connector.transport.http.dsp.dcat import Service, Writer
from connector.transport.http.dsp.exchange import Exchange
from connector.transport.http.dsp.paths import CATALOG

PAGE = 100  # datasets
PAGE_BYTES = 1 << 20  # of datasets' records on one page, unless a single one is larger
PARAMETER = "page"
_MAX_LINK = 4096
_MAX_ID = 256
_MAX_WORDS = 256
_FILTERS = {"text": _MAX_WORDS, "keyword": _MAX_WORDS, "id": _MAX_ID}
_MEDIA = "application/json"
_HEADERS = {"Cache-Control": "no-store"}


class Catalogue:
    """``participant`` is our id, ``service`` what our datasets are offered by."""

    def __init__(self, participant: str, service: Service, datasets: DatasetStore) -> None:
        self._url = f"{service.url}{CATALOG}"
        self._datasets = datasets
        self._writer = Writer(participant, service)

    async def request(self, exchange: Exchange) -> Response:
        """A page: the first of what the message asks for, or the one that the link names."""
        request = exchange.request
        wanted, after, before = Wanted(), 0, 0
        if request.method == "POST":
            wanted = read_filter(
                (await exchange.message("CatalogRequestMessage")).get("filter", [])
            )
        if PARAMETER in request.query_params:
            wanted, after, before = read_link(request.query_params[PARAMETER])
        found = await self._datasets.listed(wanted, after=after, before=before, limit=PAGE + 1)
        page = _fitting(found, backwards=bool(before))
        links = self._links(wanted, found, page, after=after, before=before)
        body = self._writer.catalog(one.dataset for one in page)
        headers = {**_HEADERS, "Link": ", ".join(links)} if links else _HEADERS
        return Response(body, headers=headers, media_type=_MEDIA)

    async def dataset(self, exchange: Exchange) -> Response:
        wanted = exchange.request.path_params["id"]
        published = await self._datasets.get(wanted) if len(wanted) <= _MAX_ID else None
        record = b"" if published is None else fields.encode_json(dataset_json(published.dataset))
        body = self._writer.dataset(record) if record else b""
        if not body:
            raise NotFound("no such dataset")
        return Response(body, headers=_HEADERS, media_type=_MEDIA)

    def _links(
        self,
        wanted: Wanted,
        found: Sequence[Listed],
        page: Sequence[Listed],
        *,
        after: int,
        before: int,
    ) -> list[str]:
        if not page:
            return []
        more = len(page) < len(found)
        links = []
        if more if before else after:
            links.append(("previous", make_link(wanted, before=page[0].number)))
        if before or more:
            links.append(("next", make_link(wanted, after=page[-1].number)))
        return [f'<{self._url}?{PARAMETER}={link}>; rel="{rel}"' for rel, link in links]


def _fitting(found: Sequence[Listed], *, backwards: bool) -> Sequence[Listed]:
    """What of it makes one page; backwards it is the end of the list that matters."""
    count, left = 0, PAGE_BYTES
    for one in reversed(found) if backwards else found:
        left -= len(one.dataset)
        if count == PAGE or (left < 0 and count):
            break
        count += 1
    return found[len(found) - count :] if backwards else found[:count]


def read_filter(value: Any) -> Wanted:
    """Raises ``InvalidInput`` for a filter that is not supported."""
    said: dict[str, str] = {}
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict) and _asks_nothing(item):
            continue
        if not isinstance(item, dict) or len(item) != 1 or not item.keys() <= _FILTERS.keys():
            raise InvalidInput(
                "filter: not supported",
                hint='a list of {"text": words}, {"keyword": words} or {"id": a dataset\'s id}',
            )
        ((name, _),) = item.items()
        if name in said:
            raise InvalidInput(f"filter: {name} twice")
        said[name] = fields.text(item, name, limit=_FILTERS[name])
    return Wanted(**said)


def _asks_nothing(item: Mapping[str, Any]) -> bool:
    """A QuerySpec (in whatever spelling of its namespace) for everything from the start."""
    short = {_local(key): part for key, part in item.items()}
    type_ = short.pop("@type", "")
    if not isinstance(type_, str) or _local(type_) != "QuerySpec":
        return False
    offset = short.pop("offset", 0)
    if isinstance(offset, dict):
        offset = offset.get("@value")
    rest = {key: part for key, part in short.items() if key not in ("limit", "sortOrder")}
    return offset in (0, "0") and not any(rest.values())


def _local(name: str) -> str:
    return name.rpartition("/")[2].rpartition(":")[2]


def make_link(wanted: Wanted, *, after: int = 0, before: int = 0) -> str:
    value = {"text": wanted.text, "keyword": wanted.keyword, "id": wanted.id}
    place = {"after": after, "before": before}
    return b64url(
        fields.encode_json({name: part for name, part in (value | place).items() if part})
    )


_LINK_KEYS = frozenset({"text", "keyword", "id", "after", "before"})


def read_link(link: str) -> tuple[Wanted, int, int]:
    """(what is wanted, after, before). Raises ``InvalidInput``."""
    try:
        if len(link) > _MAX_LINK:
            raise InvalidInput("too long")
        value = fields.as_object(fields.parse_json(unb64url(link)), PARAMETER)
        fields.only_keys(value, _LINK_KEYS, PARAMETER)
        said = {
            name: fields.text(value, name, limit=most)
            for name, most in _FILTERS.items()
            if name in value
        }
        after, before = (fields.integer(value, name, default=0) for name in ("after", "before"))
        if bool(after) is bool(before):
            raise InvalidInput("one place")
    except ConnectorError as error:
        raise InvalidInput(f"{PARAMETER}: not one of our links") from error
    return Wanted(**said), after, before
