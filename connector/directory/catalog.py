"""The space's catalogue: datasets that their publishers signed, found by words.

The index answers with the publishers' own statements, so whoever searches verifies them and has
not to trust the index. What is indexed is text that the publisher wrote for people; the rules of a
dataset are enforced by its provider, not here.
"""

from __future__ import annotations

from dataclasses import dataclass

from connector.directory import paging
from connector.directory.register import Register
from connector.directory.words import index_terms, match_query
from connector.errors import InvalidInput, NotFound, Reason, Refused, Unauthenticated
from connector.identity.datasets import read_dataset
from connector.model.catalog import Classification, Dataset
from connector.model.participant import Participant
from connector.policy.decisions import LISTING, read_listing
from connector.policy.inputs import listing_input
from connector.ports.clock import Clock
from connector.ports.directory import CatalogStore, Listing
from connector.ports.policy import PolicyEngine

PAGE, MOST = 50, 200  # records in a page: usually, and at most
MAX_OFFSET = 10_000  # records that a search can page through
MOST_FOR_ONE = 10_000  # datasets of one publisher


@dataclass(frozen=True, slots=True)
class SearchPage:
    """Publishers' statements, best first; ``next_token`` is empty on the last page."""

    records: tuple[str, ...]
    next_token: str


class CatalogIndex:
    """``policy`` is asked before a dataset is listed; core data is not, whatever it says."""

    def __init__(
        self,
        *,
        register: Register,
        store: CatalogStore,
        clock: Clock,
        policy: PolicyEngine,
    ) -> None:
        self._register = register
        self._store = store
        self._clock = clock
        self._policy = policy

    async def publish(self, caller: str, record: str) -> Dataset:
        """List a dataset, or replace the caller's earlier version of it.

        ``record`` is a statement of kind ``dataset`` by the caller. Raises ``Unauthenticated``,
        ``InvalidInput``, ``VerificationFailed``, ``Refused`` or ``Conflict`` (too many).
        """
        publisher = self._register.active(caller)
        dataset = read_dataset(record, publisher.signing_keys)
        if dataset.publisher != caller:
            raise Unauthenticated("the dataset is another participant's")
        await self._judge(publisher, dataset)
        terms = (
            index_terms(dataset.title),
            index_terms(" / ".join(dataset.keywords)),
            index_terms(publisher.name),
            index_terms(dataset.description),
        )
        await self._store.list_dataset(Listing(caller, dataset.id, record, terms), MOST_FOR_ONE)
        return dataset

    async def withdraw(self, caller: str, dataset: str) -> None:
        """Take the caller's dataset off the list. Raises ``Unauthenticated`` or ``NotFound``."""
        self._register.active(caller)
        if not await self._store.unlist_dataset(caller, dataset):
            raise NotFound("there is no such dataset of yours in the index")

    async def search(self, query: str, page_size: int = 0, page_token: str = "") -> SearchPage:
        """Datasets of active members with all the query's words; an empty query finds all.

        Raises ``InvalidInput``.
        """
        size = paging.page_size(page_size, usual=PAGE, most=MOST)
        question = f"search {query}"
        offset = _offset(paging.read_page_token(question, page_token))
        match = match_query(query)
        if query.strip() and not match:
            return SearchPage((), "")  # nothing but punctuation
        found = await self._store.search(match, offset, size + 1)
        page = tuple(found[: paging.fitting(found[:size])])
        end = offset + len(page)
        more = len(page) < len(found) and end < MAX_OFFSET
        return SearchPage(page, paging.page_token(question, str(end)) if more else "")

    async def _judge(self, publisher: Participant, dataset: Dataset) -> None:
        if dataset.classification is Classification.CORE:
            raise Refused((Reason("classification", "core", "important or general"),))
        # The owner's word on free SQL went to its own node, which asked the same policy; the
        # record does not carry it, and the index does not ask again.
        document = listing_input(
            now=self._clock.now(), dataset=dataset, accept_free_sql=True, publisher=publisher
        )
        verdict = read_listing(await self._policy.evaluate(LISTING, document))
        if not verdict.allow:
            raise Refused(verdict.reasons)


def _offset(position: str) -> int:
    if not position:
        return 0
    if not (position.isascii() and position.isdigit()) or len(position) > 6:
        raise InvalidInput("page token: not one of ours")
    return min(int(position), MAX_OFFSET)
