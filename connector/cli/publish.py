"""``connector publish``: a table and one offer on it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from connector.cli import output, terms
from connector.cli.session import DEFAULT_DATA, Data, Json, with_node
from connector.errors import InvalidInput


def publish(
    source: Annotated[
        Path, typer.Argument(help="A Parquet or CSV file, or a folder of them.", metavar="SOURCE")
    ],
    title: Annotated[str, typer.Option("--title", help="Title, for people.")],
    table: Annotated[
        str, typer.Option("--table", help="The table's name in queries; by default the file's.")
    ] = "",
    description: Annotated[
        str, typer.Option("--description", help="What the data is, for people.")
    ] = "",
    keyword: Annotated[
        list[str] | None, typer.Option("--keyword", help="A search word; repeatable.")
    ] = None,
    classification: Annotated[
        str,
        typer.Option(
            "--classification",
            help="core (never listed), important (compute-only) or general (may flow).",
        ),
    ] = "important",
    dimension: Annotated[
        list[str] | None,
        typer.Option("--dimension", help="A column to group by and filter on; repeatable."),
    ] = None,
    purpose: terms.Purpose = None,
    uses: terms.Uses = None,
    until: terms.Until = None,
    aggregates_only: terms.AggregatesOnly = False,
    minimum_group: terms.MinimumGroup = None,
    privacy_unit: terms.PrivacyUnit = "",
    hide: terms.Hide = None,
    row_cap: terms.RowCap = None,
    terms_file: terms.TermsFile = None,
    accept_free_sql: Annotated[
        bool,
        typer.Option(
            "--accept-free-sql",
            help="Your word that free SQL with group minimums is enough for this data.",
        ),
    ] = False,
    manual_approval: Annotated[
        bool, typer.Option("--manual-approval", help="A person decides each negotiation.")
    ] = False,
    csv_null: Annotated[str, typer.Option("--csv-null", help="CSV: the text that is NULL.")] = "",
    dataset: Annotated[
        str, typer.Option("--dataset", help="The id of a dataset, to publish it anew.")
    ] = "",
    own_id: Annotated[str, typer.Option("--id", help="An id of your own for a new dataset.")] = "",
    offer_id: Annotated[
        str, typer.Option("--offer-id", help="An id of your own for its offer.")
    ] = "",
    data: Data = DEFAULT_DATA,
    as_json: Json = False,
) -> None:
    """Publish a table with one offer; the data stays at this node."""
    path = source.expanduser().resolve()
    if not path.exists():
        raise InvalidInput(f"there is no {source}", hint="the node on this machine reads it itself")
    offered = terms.build(
        terms.TermFlags(
            purposes=purpose or (),
            uses=uses,
            until=until,
            aggregates_only=aggregates_only,
            minimum_group=minimum_group,
            privacy_unit=privacy_unit,
            hidden=hide or (),
            row_cap=row_cap,
        ),
        terms_file,
    )
    found = with_node(
        data,
        lambda node: node.publish(
            path,
            title=title,
            table=table or path.stem,
            classification=classification,
            terms=offered,
            description=description,
            keywords=keyword or (),
            hidden_columns=hide or (),
            privacy_unit=privacy_unit,
            dimensions=dimension or (),
            accept_free_sql=accept_free_sql,
            csv_null=csv_null,
            dataset_id=dataset,
            own_id=own_id,
            offer_id=offer_id,
            manual_approval=manual_approval,
        ),
        doing="reading the source and publishing",
    )
    if as_json:
        output.show_json(found)
        return
    for warning in found.warnings:
        output.note(f"warning: {warning}")
    output.pairs(
        [("dataset", found.dataset_id), ("offer", found.offer_id), ("rows", f"{found.rows:,}")]
    )
