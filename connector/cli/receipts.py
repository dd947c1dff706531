"""``connector receipts`` and ``connector evidence``: what was used, and how to prove it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from connector.cli import output
from connector.cli.agreements import AgreementId
from connector.cli.failure import PEER_FAULT
from connector.cli.log_export import with_log
from connector.cli.session import DEFAULT_DATA, Data, Json, with_node
from connector.errors import Conflict, InvalidInput

if TYPE_CHECKING:
    from connector.client import Node, Receipt, ReconcileLine

receipts = typer.Typer(no_args_is_help=True, help="What was used, by this node's own log.")
evidence = typer.Typer(no_args_is_help=True, help="Proof for somebody who trusts neither side.")


@receipts.command("list")
def list_receipts(
    scope: Annotated[
        str, typer.Argument(help="An agreement's id or a DID; empty for all.", metavar="[SCOPE]")
    ] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, help="At most this many.")] = 100,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """List receipts, newest last."""
    found = with_node(data, lambda node: node.receipts(scope, limit=limit))
    if as_json:
        output.show_json(found)
        return
    output.table(
        ("TIME", "SCOPE", "NO.", "KIND", "OUTCOME", "PURPOSE", "ROWS", "WHY"),
        [
            (
                receipt.time,
                receipt.scope,
                receipt.number,
                receipt.act or receipt.kind,
                receipt.outcome,
                receipt.purpose,
                str(receipt.quantities.get("rows_returned", "")),
                _why(receipt),
            )
            for receipt in found.receipts
        ],
        empty="none yet",
    )
    output.note(f"{found.log_size:,} receipts in the whole log")


@receipts.command()
def proof(
    agreement: AgreementId,
    number: Annotated[
        int, typer.Argument(min=1, max=2**53, help="The receipt's number in the agreement.")
    ],
    out: Annotated[
        Path, typer.Option("--out", help="The file to write; FILE.leaf beside it.", metavar="FILE")
    ] = Path("receipt.tlog-proof"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the files.")] = False,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Write one receipt, and a C2SP tlog-proof that it is in this node's log."""
    from connector.tlog.proof import Proof, write_proof

    leaf = out.with_name(f"{out.name}.leaf")
    for path in (out, leaf):
        if path.exists() and not force:
            raise Conflict(f"{path} is already there", hint="choose another --out, or add --force")
    found = with_node(data, lambda node: node.receipt_proof(agreement, number))
    key = with_log(data, lambda log: log.keys()).log
    content = write_proof(Proof(found.index, found.inclusion, found.checkpoint))
    try:
        leaf.write_bytes(found.leaf)
        out.write_bytes(content)
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written: {error.strerror}") from error
    if as_json:
        output.show_json({"path": str(out), "leaf": str(leaf), "index": found.index, "key": key})
        return
    output.say(f"wrote {out} and {leaf} (leaf {found.index:,} of the log)")
    words = ["connector-verify", "proof", str(out), "--leaf", str(leaf), "--key", key]
    output.say(f"check it anywhere: {shlex.join(words)}")


def _agree(line: ReconcileLine) -> str:
    if line.provider == line.consumer:
        return "yes"
    return "may differ" if line.explained else "NO"


@receipts.command()
def reconcile(agreement: AgreementId, data: Data = DEFAULT_DATA, as_json: Json = False) -> None:
    """Compare both sides' own counts of an agreement; exit 6 if they differ."""
    found = with_node(data, lambda node: node.reconcile(agreement), doing="asking the peer")
    if as_json:
        output.show_json(found)
    else:
        output.table(
            ("QUANTITY", "PROVIDER", "CONSUMER", "AGREE"),
            [(line.name, line.provider, line.consumer, _agree(line)) for line in found.lines],
            empty="no uses yet",
        )
        output.say("both sides agree" if found.agree else "THE SIDES DIFFER")
    if not found.agree:
        raise typer.Exit(PEER_FAULT)


@evidence.command()
def export(
    agreement: AgreementId,
    out: Annotated[Path, typer.Option("--out", help="The file to write.", metavar="FILE")] = Path(
        "evidence.json"
    ),
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
    disclose_secret: Annotated[
        bool,
        typer.Option(
            "--disclose-secret",
            help="Also the secret that keys digests, so that requests can be compared.",
        ),
    ] = False,
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Write everything that connector-verify needs about one agreement."""
    if out.exists() and not force:
        raise Conflict(f"{out} is already there", hint="choose another --out, or add --force")

    async def run(node: Node) -> tuple[bytes, str]:
        content = await node.export_evidence(agreement, disclose_secret=disclose_secret)
        return content, (await node.status()).space_key

    content, key = with_node(data, run, doing="collecting proofs")
    try:
        out.write_bytes(content)
    except OSError as error:
        raise InvalidInput(f"{out} cannot be written: {error.strerror}") from error
    if as_json:
        output.show_json({"path": str(out), "bytes": len(content), "space_key": key})
        return
    output.say(f"wrote {out} ({len(content):,} bytes)")
    output.say(f"check it anywhere: connector-verify {out} --space-key {key}")


def _why(receipt: Receipt) -> str:
    return "; ".join(sorted({reason.term for reason in receipt.reasons}))
