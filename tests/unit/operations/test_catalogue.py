"""The directory's catalogue, believed record by record."""

from connector.errors import Unauthenticated
from connector.identity.statements import sign_statement
from connector.model.catalog import dataset_json
from connector.operations.catalogue import Catalogue
from connector.ports.peers import Page
from tests.negotiators import AIRPORT, DATASET, TOURISM, key_of, record_of

GOOD = sign_statement(key_of(AIRPORT), "dataset", dataset_json(DATASET))
BAD = {
    "signed by another member": sign_statement(key_of(TOURISM), "dataset", dataset_json(DATASET)),
    "another kind of statement": sign_statement(key_of(AIRPORT), "offer", dataset_json(DATASET)),
    "of nobody that we know": sign_statement(
        key_of("did:web:gone.example"),
        "dataset",
        dataset_json(DATASET) | {"publisher": "did:web:gone.example"},
    ),
    "no dataset": sign_statement(key_of(AIRPORT), "dataset", {"publisher": AIRPORT}),
    "no publisher": sign_statement(key_of(AIRPORT), "dataset", {}),
    "no statement": "rows for free",
    "nothing": "",
}


class Directory:
    async def search(self, query, size, token):
        assert (query, size, token) == ("航班", 20, "t1")
        return Page((*BAD.values(), GOOD), "t2")


def lookup(did: str):
    if did not in (AIRPORT, TOURISM):
        raise Unauthenticated("not an active member")
    return record_of(did)


async def test_what_does_not_verify_is_left_out() -> None:
    found = await Catalogue(Directory(), lookup).search("航班", 20, "t1")  # type: ignore[arg-type]
    assert found.datasets == (DATASET,)
    assert found.next == "t2"
