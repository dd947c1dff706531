"""Two EDC runtimes with each other: what the interoperability tests stand on works by itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.interop.edc.build import require
from tests.interop.edc.management import Peer
from tests.interop.edc.runtime import Runtime, StaticTokens, start
from tests.interop.edc.source import source

PROVIDER = "did:web:provider.example"
CONSUMER = "did:web:consumer.example"
DATA = b"year,month\n2013,1\n"
FOR_RESEARCH = {
    "permission": [
        {
            "action": "use",
            "constraint": [
                {"leftOperand": "odrl:purpose", "operator": "eq", "rightOperand": "research"}
            ],
        }
    ]
}
IDENTITIES = {
    "mock identity": (None, None),
    "static tokens": (
        StaticTokens(own="of-the-provider", peer="of-the-consumer", peer_id=CONSUMER),
        StaticTokens(own="of-the-consumer", peer="of-the-provider", peer_id=PROVIDER),
    ),
}


@pytest.fixture(params=IDENTITIES, scope="module")
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Runtime, Runtime]]:
    """A provider and a consumer."""
    built = require()
    folder: Path = tmp_path_factory.mktemp("edc")
    of_provider, of_consumer = IDENTITIES[request.param]
    with ExitStack() as stack:
        yield (
            stack.enter_context(start(built, folder / "provider", PROVIDER, of_provider)),
            stack.enter_context(start(built, folder / "consumer", CONSUMER, of_consumer)),
        )


def test_negotiates_and_pulls(pair: tuple[Runtime, Runtime]) -> None:
    provider, consumer = pair
    peer = Peer(PROVIDER, provider.protocol_url)
    with source(DATA) as address:
        provider.management.offer("flights", address, FOR_RESEARCH)

        catalog = consumer.management.catalog(peer)
        assert catalog["participantId"] == PROVIDER
        assert [dataset["@id"] for dataset in catalog["dataset"]] == ["flights"]

        dataset = consumer.management.dataset(peer, "flights")
        agreement = consumer.management.agreed(consumer.management.request(peer, dataset))
        transfer, reference = consumer.management.pull(peer, agreement)
        assert _pull(reference.endpoint, reference.authorization).content == DATA
        assert _pull(reference.endpoint, "made up").status_code == 403

        consumer.management.terminate(transfer, "enough")
        consumer.management.transferred(transfer, "TERMINATED")

    assert len(provider.recorder.messages("ContractRequestMessage")) == 1
    assert len(consumer.recorder.messages("ContractAgreementMessage")) == 1
    assert len(consumer.recorder.messages("TransferStartMessage")) == 1
    assert all(seen.status == 200 for seen in provider.recorder.exchanges)


def _pull(endpoint: str, authorization: str) -> httpx.Response:
    return httpx.get(endpoint, headers={"Authorization": authorization})
