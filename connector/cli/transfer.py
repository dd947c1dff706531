"""``connector transfer``: the data of an agreement, moved (DSP 2025-1, "Transfer Process")."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connector.cli import output
from connector.cli.failure import REFUSED
from connector.cli.session import DEFAULT_DATA, Data, Json, with_node

if TYPE_CHECKING:
    from connector.client import Transfer

FOLLOW_S = 30.0

group = typer.Typer(no_args_is_help=True, help="Transfers of an agreement's data.")

Pid = Annotated[str, typer.Argument(help="The transfer's process id here.", metavar="PID")]
Reason = Annotated[str, typer.Option("--reason", help="For the peer.")]
AgreementId = Annotated[str, typer.Argument(help="The agreement's id.", metavar="AGREEMENT")]


@group.command()
def request(
    agreement: AgreementId,
    format_: Annotated[
        str, typer.Option("--format", help="One of the dataset's, if not HttpData-PULL.")
    ] = "",
    follow: Annotated[
        float, typer.Option("--follow", min=0.1, help="Seconds to wait for the provider's answer.")
    ] = FOLLOW_S,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Ask for the data of an agreement, and wait for the provider's answer."""
    states: list[str] = []

    def heard(change: Transfer) -> None:
        if change.state not in states[-1:]:
            states.append(change.state)
            if not as_json:
                output.say(change.state)

    found = with_node(
        data,
        lambda node: node.request_transfer(
            agreement, format=format_, follow_s=follow, on_change=heard
        ),
        doing="transferring",
    )
    _show(found, as_json)
    if found.state == "TERMINATED":
        raise typer.Exit(REFUSED)


@group.command("list")
def list_transfers(
    agreement: Annotated[
        str, typer.Option("--agreement", help="Only those of this agreement.", metavar="ID")
    ] = "",
    open_only: Annotated[
        bool, typer.Option("--open", help="Only those that are not over.")
    ] = False,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """List transfers, newest first."""
    found = with_node(
        data, lambda node: node.transfers(agreement_id=agreement, open_only=open_only)
    )
    if as_json:
        output.show_json({"transfers": [output.plain(each) for each in found]})
        return
    output.table(
        ("PID", "SIDE", "PEER", "AGREEMENT", "FORMAT", "STATE", "WAITS FOR YOU", "UPDATED"),
        [
            (t.pid, t.party, t.peer, t.agreement_id, t.format, t.state, t.waiting, t.updated)
            for t in found
        ],
        empty="none yet; next: connector transfer request AGREEMENT",
    )


@group.command()
def show(
    pid: Pid,
    secrets: Annotated[
        bool, typer.Option("--secrets", help="With the token that opens the data.")
    ] = False,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Show a transfer, and where its data is."""
    _show(with_node(data, lambda node: node.transfer(pid)), as_json, secrets=secrets)


@group.command()
def start(pid: Pid, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """As the provider: start what was requested and waits for you."""
    _decide(pid, "start", data, as_json)


@group.command()
def suspend(
    pid: Pid, reason: Reason = "", data: Data = DEFAULT_DATA, as_json: Json = False
) -> None:
    """Stop a transfer for a while: nothing flows until it is resumed."""
    _decide(pid, "suspend", data, as_json, reason)


@group.command()
def resume(pid: Pid, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Go on after a suspension; as the consumer: ask the provider to."""
    _decide(pid, "resume", data, as_json)


@group.command()
def complete(pid: Pid, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Say that all was transferred."""
    _decide(pid, "complete", data, as_json)


@group.command()
def terminate(
    pid: Pid, reason: Reason = "", data: Data = DEFAULT_DATA, as_json: Json = False
) -> None:
    """End a transfer before its time."""
    _decide(pid, "terminate", data, as_json, reason)


def _decide(pid: str, action: str, data: Path, as_json: bool, reason: str = "") -> None:
    _show(with_node(data, lambda node: node.decide_transfer(pid, action, reason=reason)), as_json)


def _show(found: Transfer, as_json: bool, *, secrets: bool = False) -> None:
    address = found.data_address
    if as_json:
        shown = output.plain(found)
        if address is not None and not secrets:
            shown["data_address"]["properties"] = dict.fromkeys(address.properties, "hidden")
        output.show_json({"transfer": shown})
        return
    output.pairs(
        [
            ("transfer", found.pid),
            ("state", found.state),
            ("side", found.party),
            ("peer", found.peer),
            ("agreement", found.agreement_id),
            ("format", found.format),
            ("data at", address.endpoint if address else ""),
            *(sorted(address.properties.items()) if address and secrets else ()),
            ("code", found.code),
            ("reason", found.reason),
        ]
    )
    if found.waiting:
        output.say(f"next: connector transfer start {found.pid} (or terminate)")
    elif found.state == "REQUESTED" and found.party == "consumer":
        output.say("the provider has not started it yet: see connector transfer list")
