"""This node's catalogue over HTTPS (DSP 2025-1, "Catalog HTTPS Binding").

Pages are linked by ``Link`` headers (RFC 8288) with the relations ``next`` and ``previous``; a link
is followed with the same POST, or a GET. What a link holds is no secret and no permission: the
question, and a place in the list, within limits that are checked.

A ``filter`` is a list of at most one each of

* ``{"text": "words"}``: words in title, description or keywords (Chinese and English);
* ``{"keyword": "words"}``: words in the keywords;
* ``{"id": "…"}``: the one dataset;

and all of them must hold. Of the ``QuerySpec`` that Eclipse connectors send with every request
``offset`` and ``limit`` are heeded, by which they page. Anything else is refused, as the text has
it.

Left out: compression; catalogues of others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
_MAX_PLACE = 1 << 31
_ALL = Wanted()
_MEDIA = "application/json"
_HEADERS = {"Cache-Control": "no-store"}


@dataclass(frozen=True, slots=True)
class Question:
    """What a first request asks for: at most ``limit`` datasets, after the first ``offset``."""

    wanted: Wanted = _ALL
    offset: int = 0
    limit: int = _MAX_PLACE


class Catalogue:
    """``participant`` is our id, ``service`` what our datasets are offered by."""

    def __init__(self, participant: str, service: Service, datasets: DatasetStore) -> None:
        self._url = f"{service.url}{CATALOG}"
        self._datasets = datasets
        self._writer = Writer(participant, service)

    async def request(self, exchange: Exchange) -> Response:
        """A page: the first of what the message asks for, or the one that the link names."""
        request = exchange.request
        asked, after, before = Question(), 0, 0
        if request.method == "POST":
            message = await exchange.message("CatalogRequestMessage")
            asked = read_filter(message.get("filter", []))
        if PARAMETER in request.query_params:
            wanted, after, before = read_link(request.query_params[PARAMETER])
            asked = Question(wanted, limit=asked.limit)
        most = min(asked.limit, PAGE)
        found = await self._datasets.listed(
            asked.wanted, after=after, before=before, skip=asked.offset, limit=most + 1
        )
        page = _fitting(found, most, backwards=bool(before))
        links = self._links(asked, found, page, after=after, before=before)
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
        asked: Question,
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
        if more if before else after or asked.offset:
            links.append(("previous", make_link(asked.wanted, before=page[0].number)))
        if before or more:
            links.append(("next", make_link(asked.wanted, after=page[-1].number)))
        return [f'<{self._url}?{PARAMETER}={link}>; rel="{rel}"' for rel, link in links]


def _fitting(found: Sequence[Listed], most: int, *, backwards: bool) -> Sequence[Listed]:
    """What of it makes one page; backwards it is the end of the list that matters."""
    count, left = 0, PAGE_BYTES
    for one in reversed(found) if backwards else found:
        left -= len(one.dataset)
        if count == most or (left < 0 and count):
            break
        count += 1
    return found[len(found) - count :] if backwards else found[:count]


def read_filter(value: Any) -> Question:
    """Raises ``InvalidInput`` for a filter that is not supported."""
    said: dict[str, str] = {}
    offset, limit = 0, _MAX_PLACE
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, dict) and (query := _query_spec(item)) is not None:
            offset, limit = _place(query)
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
    return Question(Wanted(**said), offset, limit)


def _query_spec(item: Mapping[str, Any]) -> dict[str, Any] | None:
    """The parts of a QuerySpec, in whatever spelling of its namespace; None for another thing."""
    short = {_local(key): part for key, part in item.items()}
    type_ = short.pop("@type", "")
    return short if isinstance(type_, str) and _local(type_) == "QuerySpec" else None


def _place(query: Mapping[str, Any]) -> tuple[int, int]:
    """Offset and limit of a QuerySpec; what else it may say would need EDC's language."""
    other = {"offset", "limit", "sortOrder", "@id"}
    if asked := sorted(key for key, part in query.items() if part and key not in other):
        raise InvalidInput(
            f"filter: a QuerySpec with {asked[0][:64]} is not supported",
            hint="of a QuerySpec only offset and limit are heeded",
        )
    offset = _whole(query, "offset", 0)
    return offset, _whole(query, "limit", 0) or _MAX_PLACE


def _whole(query: Mapping[str, Any], name: str, default: int) -> int:
    """A number, bare, as text, or as JSON-LD has a typed value."""
    value = query.get(name, default)
    if isinstance(value, dict):
        value = value.get("@value")
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 11:
        value = int(value)
    if type(value) is not int or not 0 <= value <= _MAX_PLACE:
        raise InvalidInput(f"filter: {name} must be a whole number from 0")
    return value


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
