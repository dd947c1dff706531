"""Commands about one peer, a member of the space or not: what it offers, and agreeing to it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from connector._pb.dataspace.management.v1 import management_pb2 as pb
from connector.cli.commands import run
from tests.unit.fake_node import DATASET, OFFER, FakeNode, negotiation, running

Capture = pytest.CaptureFixture[str]
PEER, URL = "did:web:foreign.example", "https://foreign.example/2025-1"
UNENFORCED = pb.Reason(term="obligation", observed="acme:pay", allowed="attribute")


@pytest.fixture
def place() -> Iterator[tuple[Path, FakeNode]]:
    with running() as (data, node):
        node.on["ListPeerCatalog"] = catalog()
        yield data, node


def catalog(**more: object) -> pb.ListPeerCatalogResponse:
    offers = [
        pb.PeerOffer(id="urn:offer:1", offer=json.dumps(OFFER).encode()),
        pb.PeerOffer(
            id="urn:offer:2",
            offer=json.dumps({**OFFER, "obligation": [{"action": "acme:pay"}]}).encode(),
            unenforced=[UNENFORCED],
        ),
    ]
    dataset = pb.PeerDataset(id=DATASET, title="Flights", formats=["HttpData-PULL"], offers=offers)
    values = {"peer": PEER, "claimed": PEER, "datasets": [dataset]}
    return pb.ListPeerCatalogResponse(**(values | more))  # type: ignore[arg-type]


def call(data: Path, *words: str) -> int:
    return run([*words, "--data", str(data)])


def test_what_a_peer_offers(place: tuple[Path, FakeNode], capsys: Capture) -> None:
    data, node = place
    node.on["ListPeerCatalog"] = catalog(next_page_token=f"{URL}?page=2")
    assert call(data, "catalog", "list", URL, "--filter", "air", "--page", f"{URL}?page=1") == 0
    (asked,) = node.asked_for("ListPeerCatalog")
    assert (asked.peer, asked.filter, asked.page_token) == (URL, "air", f"{URL}?page=1")
    said = capsys.readouterr()
    assert "urn:offer:2" in said.out
    assert "obligation" in said.out
    assert f"--provider {PEER}" in said.out
    assert "nobody signed" in said.err
    assert f"--page '{URL}?page=2'" in said.err
    assert call(data, "catalog", "list", URL, "--json") == 0
    shown = json.loads(capsys.readouterr().out)["catalog"]
    assert shown["datasets"][0]["offers"][1]["unenforced"][0]["observed"] == "acme:pay"


def test_what_a_stranger_offers(place: tuple[Path, FakeNode], capsys: Capture) -> None:
    data, node = place
    node.on["ListPeerCatalog"] = catalog(peer="", stranger=True)
    assert call(data, "catalog", "list", URL) == 0
    said = capsys.readouterr()
    assert "[[peer]]" in said.err
    assert "negotiate" not in said.out
    assert call(data, "negotiate", DATASET, "--provider", URL, "--offer", "urn:offer:1") == 4
    assert not node.asked_for("Negotiate")


def test_an_offer_that_can_be_enforced(place: tuple[Path, FakeNode]) -> None:
    data, node = place
    assert call(data, "negotiate", DATASET, "--provider", URL, "--offer", "urn:offer:1") == 0
    (looked,), (asked,) = node.asked_for("ListPeerCatalog"), node.asked_for("Negotiate")
    assert (looked.peer, looked.dataset_id) == (URL, DATASET)
    assert (asked.provider, asked.dataset_id, asked.offer_id) == (PEER, DATASET, "urn:offer:1")
    assert not asked.accept_unenforced
    # What was shown is asked for, whatever the peer calls its offer next time.
    assert json.loads(asked.terms) == {"permission": OFFER["permission"]}


def test_one_of_several_offers_must_be_named(place: tuple[Path, FakeNode]) -> None:
    assert call(place[0], "negotiate", DATASET, "--provider", URL) == 2
    assert call(place[0], "negotiate", DATASET, "--provider", URL, "--offer", "another") == 4


def test_terms_that_cannot_be_enforced_are_shown_first(
    place: tuple[Path, FakeNode], capsys: Capture
) -> None:
    data, node = place
    words = ("negotiate", DATASET, "--provider", PEER, "--offer", "urn:offer:2")
    assert call(data, *words) == 3
    said = capsys.readouterr().err
    assert "acme:pay" in said
    assert "--accept-unenforced" in said
    assert not node.asked_for("Negotiate")
    assert call(data, *words, "--accept-unenforced") == 0
    assert "acme:pay" in capsys.readouterr().err
    (asked,) = node.asked_for("Negotiate")
    assert asked.accept_unenforced
    assert "acme:pay" in asked.terms.decode()


def test_a_counter_offer_with_such_terms(place: tuple[Path, FakeNode]) -> None:
    data, node = place
    node.on["Negotiate"] = [negotiation("FINALIZED")]
    assert call(data, "negotiate", "--accept", "urn:pid:1", "--accept-unenforced") == 0
    (asked,) = node.asked_for("Negotiate")
    assert asked.accept
    assert asked.accept_unenforced
