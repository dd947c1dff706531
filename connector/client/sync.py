"""The sync face: the same calls for scripts and notebooks that have no event loop.

One event loop runs in a thread of its own for as long as the connection is open; calls may come
from any thread and block until they are answered.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from connector.client import types
from connector.client.channel import DEADLINE_S
from connector.client.node import QUERY_DEADLINE_S, Node, OnChange, connect
from connector.client.pulling import OnPulled
from connector.client.transfers import OnTransfer

T = TypeVar("T")


class SyncNode:
    """``Node`` without ``await``. Get one from ``connect_sync``."""

    def __init__(self, node: Node, loop: asyncio.AbstractEventLoop) -> None:
        self._node = node
        self._loop = loop

    def _wait(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self._loop).result()

    def status(self) -> types.Status:
        return self._wait(self._node.status())

    def enrol(self, invitation: str) -> types.Enrolment:
        return self._wait(self._node.enrol(invitation))

    def publish(
        self,
        source: Path | str,
        *,
        title: str,
        table: str,
        classification: str,
        terms: Mapping[str, Any],
        description: str = "",
        keywords: Sequence[str] = (),
        hidden_columns: Sequence[str] = (),
        privacy_unit: str = "",
        dimensions: Sequence[str] = (),
        accept_free_sql: bool = False,
        csv_null: str = "",
        dataset_id: str = "",
        own_id: str = "",
        offer_id: str = "",
        manual_approval: bool = False,
    ) -> types.Publication:
        return self._wait(
            self._node.publish(
                source,
                title=title,
                table=table,
                classification=classification,
                terms=terms,
                description=description,
                keywords=keywords,
                hidden_columns=hidden_columns,
                privacy_unit=privacy_unit,
                dimensions=dimensions,
                accept_free_sql=accept_free_sql,
                csv_null=csv_null,
                dataset_id=dataset_id,
                own_id=own_id,
                offer_id=offer_id,
                manual_approval=manual_approval,
            )
        )

    def search(
        self, query: str = "", *, page_size: int = 0, page_token: str = ""
    ) -> types.Datasets:
        return self._wait(self._node.search(query, page_size=page_size, page_token=page_token))

    def peer_catalog(
        self, peer: str, *, filter: str = "", page_token: str = "", dataset_id: str = ""
    ) -> types.PeerCatalog:
        return self._wait(
            self._node.peer_catalog(
                peer, filter=filter, page_token=page_token, dataset_id=dataset_id
            )
        )

    def negotiate(
        self,
        provider: str,
        dataset_id: str,
        *,
        offer_id: str = "",
        terms: Mapping[str, Any] | None = None,
        accept_counter_offer: bool = False,
        accept_unenforced: bool = False,
        follow_s: float = DEADLINE_S,
        on_change: OnChange | None = None,
    ) -> types.Negotiation:
        return self._wait(
            self._node.negotiate(
                provider,
                dataset_id,
                offer_id=offer_id,
                terms=terms,
                accept_counter_offer=accept_counter_offer,
                accept_unenforced=accept_unenforced,
                follow_s=follow_s,
                on_change=on_change,
            )
        )

    def answer(
        self,
        pid: str,
        *,
        accept: bool,
        accept_unenforced: bool = False,
        follow_s: float = DEADLINE_S,
        on_change: OnChange | None = None,
    ) -> types.Negotiation:
        return self._wait(
            self._node.answer(
                pid,
                accept=accept,
                accept_unenforced=accept_unenforced,
                follow_s=follow_s,
                on_change=on_change,
            )
        )

    def negotiations(self, *, waiting_only: bool = False) -> tuple[types.Negotiation, ...]:
        return self._wait(self._node.negotiations(waiting_only=waiting_only))

    def decide(
        self,
        pid: str,
        decision: str,
        *,
        terms: Mapping[str, Any] | None = None,
        reason: str = "",
    ) -> types.Negotiation:
        return self._wait(self._node.decide(pid, decision, terms=terms, reason=reason))

    def agreements(self) -> tuple[types.Agreement, ...]:
        return self._wait(self._node.agreements())

    def end_agreement(self, agreement_id: str, *, reason: str) -> int:
        return self._wait(self._node.end_agreement(agreement_id, reason=reason))

    def request_transfer(
        self,
        agreement_id: str,
        *,
        format: str = "",
        follow_s: float = DEADLINE_S,
        on_change: OnTransfer | None = None,
    ) -> types.Transfer:
        return self._wait(
            self._node.request_transfer(
                agreement_id, format=format, follow_s=follow_s, on_change=on_change
            )
        )

    def transfers(
        self, *, agreement_id: str = "", open_only: bool = False
    ) -> tuple[types.Transfer, ...]:
        return self._wait(self._node.transfers(agreement_id=agreement_id, open_only=open_only))

    def transfer(self, pid: str) -> types.Transfer:
        return self._wait(self._node.transfer(pid))

    def pull_to(
        self,
        pid: str,
        file: Path | str,
        *,
        max_bytes: int | None = None,
        on_progress: OnPulled | None = None,
    ) -> types.Pulled:
        return self._wait(
            self._node.pull_to(pid, file, max_bytes=max_bytes, on_progress=on_progress)
        )

    def decide_transfer(
        self, pid: str, action: str, *, code: str = "", reason: str = ""
    ) -> types.Transfer:
        return self._wait(self._node.decide_transfer(pid, action, code=code, reason=reason))

    @contextmanager
    def events(self) -> Iterator[Iterator[types.Event]]:
        connection = self._node.events()
        events = self._wait(connection.__aenter__())

        async def following() -> types.Event | None:
            return await anext(events, None)

        try:
            yield iter(lambda: self._wait(following()), None)
        finally:
            self._wait(connection.__aexit__(None, None, None))

    def query(
        self,
        agreement_id: str,
        sql: str,
        *,
        purpose: str,
        use_id: str = "",
        deadline_s: float = QUERY_DEADLINE_S,
    ) -> types.Result:
        return self._wait(
            self._node.query(
                agreement_id, sql, purpose=purpose, use_id=use_id, deadline_s=deadline_s
            )
        )

    def receipts(self, scope: str = "", *, limit: int = 0) -> types.Receipts:
        return self._wait(self._node.receipts(scope, limit=limit))

    def receipt_proof(self, agreement_id: str, number: int) -> types.ReceiptProof:
        return self._wait(self._node.receipt_proof(agreement_id, number))

    def export_evidence(self, agreement_id: str, *, disclose_secret: bool = False) -> bytes:
        return self._wait(self._node.export_evidence(agreement_id, disclose_secret=disclose_secret))

    def reconcile(self, agreement_id: str) -> types.Reconciliation:
        return self._wait(self._node.reconcile(agreement_id))

    def add_reporter(self, name: str, certificate: bytes) -> types.ReportersDoor:
        return self._wait(self._node.add_reporter(name, certificate))

    def reporters(self) -> tuple[types.Reporter, ...]:
        return self._wait(self._node.reporters())

    def remove_reporter(self, name: str) -> int:
        return self._wait(self._node.remove_reporter(name))

    def diagnose(self) -> tuple[types.Check, ...]:
        return self._wait(self._node.diagnose())


@contextmanager
def connect_sync(place: Path | str = "connector-data") -> Iterator[SyncNode]:
    """As ``connect``, for code without an event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="connector-client", daemon=True)
    thread.start()
    connection = connect(place)

    def wait(call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, loop).result()

    try:
        node = wait(connection.__aenter__())
        try:
            yield SyncNode(node, loop)
        finally:
            wait(connection.__aexit__(None, None, None))
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
