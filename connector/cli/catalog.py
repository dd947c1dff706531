"""``connector catalog``: what the space's members offer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from connector.cli import output, terms
from connector.cli.session import DEFAULT_DATA, Data, Json, with_node
from connector.errors import NotFound

group = typer.Typer(no_args_is_help=True, help="What the space's members offer.")

Peer = Annotated[
    str,
    typer.Argument(help="A DID, an id of connector.toml, or an https URL.", metavar="PEER"),
]
PAGE = 100  # datasets asked for at once
MAX_PAGES = 100


@group.command()
def search(
    words: Annotated[
        list[str] | None, typer.Argument(help="Words, in any language; none lists everything.")
    ] = None,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Search the space's catalogue."""
    query = " ".join(words or ())
    found = with_node(data, lambda node: node.search(query, page_size=PAGE), doing="searching")
    if as_json:
        output.show_json({"datasets": found.datasets, "next_page_token": found.next_page_token})
        return
    output.table(
        ("DATASET", "TITLE", "PUBLISHER", "CLASS", "TABLE"),
        [
            (d["@id"], d["title"], d["publisher"], d["tds:classification"], d["tds:table"])
            for d in found.datasets
        ],
        empty="nothing found",
    )
    if found.next_page_token:
        output.note(f"more than {PAGE} found: narrow the words")


@group.command()
def show(
    dataset: Annotated[str, typer.Argument(help="The dataset's id.", metavar="DATASET")],
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Show a dataset, its columns and its offers' terms."""
    found = find(data, dataset)
    if as_json:
        output.show_json(found)
        return
    output.pairs(
        [
            ("title", found["title"]),
            ("description", found["description"]),
            ("keywords", found["keyword"]),
            ("dataset", found["@id"]),
            ("publisher", found["publisher"]),
            ("classification", found["tds:classification"]),
            ("table", found["tds:table"]),
        ]
    )
    output.say()
    output.table(
        ("COLUMN", "TYPE", "ROLE"),
        [(column["name"], column["type"], column["role"]) for column in found["tds:columns"]],
    )
    for offer in found["hasPolicy"]:
        output.say()
        output.say(f"offer {offer['@id']}")
        for line in terms.describe(offer):
            output.say(f"  {line}")
    output.say()
    output.say(f"next: connector negotiate {found['@id']}")


@group.command("list")
def list_peer(
    peer: Peer,
    filter: Annotated[
        str,
        typer.Option("--filter", help="Words, or a JSON filter in the language the peer speaks."),
    ] = "",
    page: Annotated[str, typer.Option("--page", help="From the page before.")] = "",
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """List what one peer offers: a member of the space, or any connector over HTTPS."""
    found = with_node(
        data,
        lambda node: node.peer_catalog(peer, filter=filter, page_token=page),
        doing="asking the peer",
    )
    if as_json:
        output.show_json({"catalog": found})
        return
    output.table(
        ("DATASET", "TITLE", "OFFER", "CANNOT BE ENFORCED", "FORMATS"),
        [
            (d.id, d.title, offer.id, [reason.term for reason in offer.unenforced], d.formats)
            for d in found.datasets
            for offer in d.offers
        ],
        empty="nothing on this page" if found.next_page_token else "nothing found",
    )
    if not found.signed:
        output.note("nobody signed this catalogue; its host's certificate is all that vouches")
    if found.stranger:
        output.note("the peer is neither a member of the space nor in connector.toml ([[peer]])")
        output.note(f"it says that it is: {found.claimed}")
    else:
        output.say(f"next: connector negotiate DATASET --provider {found.peer}")
    if found.next_page_token:
        output.note(f"there is more: --page '{found.next_page_token}'")


def find(data: Path, dataset: str) -> Mapping[str, Any]:
    """The dataset of this id in the catalogue. Raises ``NotFound``."""
    token = ""
    for _ in range(MAX_PAGES):
        page = token
        found = with_node(data, lambda node: node.search(page_size=PAGE, page_token=page))  # noqa: B023
        for each in found.datasets:
            if each.get("@id") == dataset:
                return each
        token = found.next_page_token
        if not token:
            break
    raise NotFound(
        "there is no such dataset in the catalogue", hint="connector catalog search lists them"
    )
