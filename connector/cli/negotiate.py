"""``connector negotiate``, ``propose`` and ``approvals``: both sides of a contract negotiation
(DSP 2025-1)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from connector.cli import output, terms
from connector.cli.catalog import find
from connector.cli.failure import REFUSED
from connector.cli.session import DEFAULT_DATA, Data, Json, with_node
from connector.errors import InvalidInput, NotFound, Refused

if TYPE_CHECKING:
    from connector.client import Negotiation, Node

    Follow: TypeAlias = Callable[[Node, Callable[[Negotiation], None]], Awaitable[Negotiation]]

FOLLOW_S = 30.0

Pid = Annotated[str, typer.Argument(help="The negotiation's process id here.", metavar="PID")]
Reason = Annotated[str, typer.Option("--reason", help="For the peer.")]

approvals = typer.Typer(no_args_is_help=True, help="Negotiations that wait for a person here.")


def negotiate(
    dataset: Annotated[
        str | None, typer.Argument(help="The dataset's id, to start.", metavar="DATASET")
    ] = None,
    offer: Annotated[
        str, typer.Option("--offer", help="The offer's id, if the dataset has several.")
    ] = "",
    provider: Annotated[
        str,
        typer.Option(
            "--provider",
            help="Whose dataset: a DID, an id of connector.toml, or an https URL.",
            metavar="PEER",
        ),
    ] = "",
    purpose: terms.Purpose = None,
    uses: terms.Uses = None,
    until: terms.Until = None,
    row_cap: terms.RowCap = None,
    terms_file: terms.TermsFile = None,
    accept: Annotated[
        str, typer.Option("--accept", help="Accept the counter-offer that waits.", metavar="PID")
    ] = "",
    terminate: Annotated[
        str, typer.Option("--terminate", help="End a negotiation.", metavar="PID")
    ] = "",
    accept_counter: Annotated[
        bool, typer.Option("--accept-counter", help="Accept a counter-offer without asking.")
    ] = False,
    accept_unenforced: Annotated[
        bool,
        typer.Option(
            "--accept-unenforced",
            help="Take terms that cannot be enforced here: keeping them is up to you.",
        ),
    ] = False,
    list_all: Annotated[
        bool, typer.Option("--list", help="List the negotiations that this node knows.")
    ] = False,
    follow: Annotated[
        float, typer.Option("--follow", min=0.1, help="Seconds to follow it.")
    ] = FOLLOW_S,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Negotiate an agreement: take an offer as it stands, ask for other terms, or answer.

    Without term flags the offer is taken as it stands. With them (--uses 50) the offer's other
    terms stay and the provider decides, or answers with an offer of its own.
    """
    if sum(1 for given in (dataset, accept, terminate, list_all) if given) != 1:
        raise InvalidInput(
            "say one thing: a DATASET, --accept PID, --terminate PID or --list",
            hint="connector catalog search lists datasets",
        )
    if list_all:
        _show_list(with_node(data, lambda node: node.negotiations()), as_json)
        return
    if dataset is None:
        pid = accept or terminate
        _run(
            lambda node, heard: node.answer(
                pid,
                accept=bool(accept),
                accept_unenforced=accept_unenforced,
                follow_s=follow,
                on_change=heard,
            ),
            data,
            as_json,
        )
        return
    if provider:
        publisher, chosen = _at_peer(data, provider, dataset, offer, accept_unenforced, as_json)
    else:
        found = find(data, dataset)
        publisher, chosen = found["publisher"], _offer(found["hasPolicy"], offer)
    flags = terms.TermFlags(purposes=purpose or (), uses=uses, until=until, row_cap=row_cap)
    other = None
    if flags.constraints() or terms_file:
        other = terms.revise(chosen, flags, terms_file)
    elif provider:
        other = terms.stated(chosen)  # as it was shown: the peer may name the offer anew each time
    _run(
        lambda node, heard: node.negotiate(
            publisher,
            dataset,
            offer_id=chosen["@id"],
            terms=other,
            accept_counter_offer=accept_counter,
            accept_unenforced=accept_unenforced,
            follow_s=follow,
            on_change=heard,
        ),
        data,
        as_json,
    )


def propose(
    consumer: Annotated[str, typer.Argument(help="The consumer's DID.", metavar="CONSUMER")],
    dataset: Annotated[str, typer.Argument(help="The dataset's id.", metavar="DATASET")],
    purpose: terms.Purpose = None,
    uses: terms.Uses = None,
    until: terms.Until = None,
    row_cap: terms.RowCap = None,
    terms_file: terms.TermsFile = None,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """As a provider, begin a negotiation: offer a dataset of yours to a consumer.

    Without term flags it is the dataset's own offer. The consumer's person accepts it.
    """
    flags = terms.TermFlags(purposes=purpose or (), uses=uses, until=until, row_cap=row_cap)
    other = None
    if flags.constraints() or terms_file:
        other = terms.revise(_offer(find(data, dataset)["hasPolicy"], ""), flags, terms_file)
    _show(with_node(data, lambda node: node.propose(consumer, dataset, terms=other)), as_json)


@approvals.command("list")
def list_approvals(data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """List what waits for a decision."""
    _show_list(with_node(data, lambda node: node.negotiations(waiting_only=True)), as_json)


@approvals.command()
def approve(pid: Pid, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Agree to what the peer asks for."""
    _show(with_node(data, lambda node: node.decide(pid, "approve")), as_json)


@approvals.command()
def reject(pid: Pid, reason: Reason, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Refuse, and end the negotiation."""
    _show(with_node(data, lambda node: node.decide(pid, "reject", reason=reason)), as_json)


@approvals.command()
def counter(
    pid: Pid,
    purpose: terms.Purpose = None,
    uses: terms.Uses = None,
    until: terms.Until = None,
    row_cap: terms.RowCap = None,
    terms_file: terms.TermsFile = None,
    reason: Annotated[str, typer.Option("--reason", help="For the peer.")] = "",
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Offer other terms instead: what the peer asked for, with your flags' changes."""
    flags = terms.TermFlags(purposes=purpose or (), uses=uses, until=until, row_cap=row_cap)
    if not flags.constraints() and terms_file is None:
        raise InvalidInput("a counter-offer changes a term", hint="as --uses 5 --until 2027-01-31")

    async def run(node: Node) -> Negotiation:
        offered = terms.revise((await node.negotiation(pid)).offer, flags, terms_file)
        return await node.decide(pid, "counter", terms=offered, reason=reason)

    _show(with_node(data, run), as_json)


def _at_peer(
    data: Path, peer: str, dataset: str, wanted: str, accept_unenforced: bool, as_json: bool
) -> tuple[str, Mapping[str, Any]]:
    """Who the peer is, and its offer; what of that cannot be enforced is said first.

    Raises ``Refused`` if there is such a thing and it was not accepted.
    """
    catalog = with_node(
        data, lambda node: node.peer_catalog(peer, dataset_id=dataset), doing="asking the peer"
    )
    if catalog.stranger or not catalog.datasets:
        raise NotFound(
            "the peer is neither a member of the space nor in connector.toml",
            hint="agree on tokens with it, and add a [[peer]] (docs/dsp.md)",
        )
    offers = catalog.datasets[0].offers
    chosen = _offer([{**offer.offer, "@id": offer.id} for offer in offers], wanted)
    reasons = next(offer.unenforced for offer in offers if offer.id == chosen["@id"])
    if reasons and not accept_unenforced:
        raise Refused(
            reasons,
            hint="--accept-unenforced takes these terms all the same: keeping them is up to you",
        )
    if reasons and not as_json:
        output.note("these terms cannot be enforced here; keeping them is up to you:")
        for reason in reasons:
            output.note(f"  {reason.term}: {reason.observed} (would be enforced: {reason.allowed})")
    return catalog.peer, chosen


def _offer(offers: Sequence[Mapping[str, Any]], wanted: str) -> Mapping[str, Any]:
    found = [offer for offer in offers if wanted in ("", offer["@id"])]
    if not found:
        raise NotFound("the dataset has no such offer", hint="connector catalog show DATASET")
    if len(found) > 1:
        raise InvalidInput("the dataset has several offers", hint="choose one with --offer ID")
    return found[0]


def _run(call: Follow, data: Path, as_json: bool) -> None:
    states: list[str] = []

    def heard(change: Negotiation) -> None:
        if not states or states[-1] != change.state:
            states.append(change.state)
            if not as_json:
                output.say(change.state)

    found = with_node(data, lambda node: call(node, heard), doing="negotiating")
    _show(found, as_json, states)
    if found.state == "TERMINATED":
        raise typer.Exit(REFUSED)


def _show(found: Negotiation, as_json: bool, states: list[str] | None = None) -> None:
    if as_json:
        output.show_json({"negotiation": found, **({"states": states} if states else {})})
        return
    output.pairs(
        [
            ("negotiation", found.pid),
            ("state", found.state),
            ("peer", found.peer),
            ("agreement", found.agreement_id),
            ("code", found.code),
            ("reason", found.reason),
        ]
    )
    for line in terms.describe(found.offer):
        output.say(f"  {line}")
    if found.waiting and found.party == "consumer":
        output.say(f"next: connector negotiate --accept {found.pid} (or --terminate)")
    elif found.waiting:
        output.say(f"next: connector approvals approve {found.pid} (or reject, counter)")
    elif found.state == "FINALIZED" and found.party == "consumer":
        output.say(f"next: connector query {found.agreement_id} --purpose ... --sql ...")
        output.say(f"  or: connector transfer request {found.agreement_id}, where data may flow")
    elif found.state == "OFFERED":
        output.say("the consumer has not answered yet: see connector negotiate --list")
    elif found.state == "REQUESTED":
        output.say("the provider has not decided yet: see connector negotiate --list")


def _show_list(found: tuple[Negotiation, ...], as_json: bool) -> None:
    if as_json:
        output.show_json({"negotiations": found})
        return
    output.table(
        ("PID", "SIDE", "PEER", "DATASET", "STATE", "WAITS FOR YOU", "UPDATED"),
        [(n.pid, n.party, n.peer, n.dataset_id, n.state, n.waiting, n.updated) for n in found],
        empty="none",
    )
