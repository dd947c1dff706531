"""``connector agreements``: the contracts that this node holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connector.cli import output, terms
from connector.cli.session import DEFAULT_DATA, Data, Json, with_node
from connector.errors import NotFound

if TYPE_CHECKING:
    from connector.client import Agreement

group = typer.Typer(no_args_is_help=True, help="The contracts that this node holds.")

AgreementId = Annotated[str, typer.Argument(help="The agreement's id.", metavar="AGREEMENT")]


@group.command("list")
def list_agreements(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """List all agreements, newest first."""
    found = with_node(data, lambda node: node.agreements())
    if as_json:
        output.show_json({"agreements": [_json(each) for each in found]})
        return
    output.table(
        ("AGREEMENT", "SIDE", "PEER", "STATE", "USES", "CONCLUDED"),
        [(a.id, a.party, a.peer, a.state, a.uses, a.concluded) for a in found],
        empty="none yet; next: connector negotiate",
    )


@group.command()
def show(agreement: AgreementId, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Show an agreement's terms."""
    found = _find(data, agreement)
    if as_json:
        output.show_json(_json(found))
        return
    output.pairs(
        [
            ("agreement", found.id),
            ("state", found.state),
            ("side", found.party),
            ("peer", found.peer),
            ("dataset", found.dataset_id),
            ("classification", found.terms.get("tds:classification")),
            ("concluded", found.concluded),
            ("uses so far", str(found.uses)),
            ("ended because", found.reason),
        ]
    )
    for line in terms.describe(found.terms):
        output.say(f"  {line}")


@group.command()
def end(
    agreement: AgreementId,
    reason: Annotated[str, typer.Option("--reason", help="For the peer and both logs.")],
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """End an agreement: the peer is told, running uses stop, both logs record it."""
    stopped = with_node(data, lambda node: node.end_agreement(agreement, reason=reason))
    if as_json:
        output.show_json({"agreement_id": agreement, "stopped_uses": stopped})
        return
    output.say(f"ended {agreement}; {stopped} running uses stopped")


def _find(data: Path, agreement: str) -> Agreement:
    for each in with_node(data, lambda node: node.agreements()):
        if each.id == agreement:
            return each
    raise NotFound("there is no such agreement here", hint="connector agreements list")


def _json(agreement: Agreement) -> dict[str, object]:
    """With the signed bytes as the text that they are."""
    return {**output.plain(agreement), "document": agreement.document.decode("utf-8", "replace")}
