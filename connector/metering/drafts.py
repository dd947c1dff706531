"""From a draft to the receipt that it becomes in its place of the log."""

from __future__ import annotations

from connector.errors import ConnectorError, InternalError
from connector.metering.types import ActDraft, DeliveryDraft, Draft
from connector.model.receipt import ActReceipt, DeliveryReceipt, Receipt, UseReceipt


def receipt_of(item: Draft, salt: bytes, number: int, time_ms: int, previous: bytes) -> Receipt:
    """The receipt; nothing of it is checked. Raises what a statement that is made here raises."""
    if isinstance(item, ActDraft):
        return ActReceipt(
            salt=salt,
            scope=item.scope,
            number=number,
            time_ms=time_ms,
            previous=previous,
            actor=item.actor,
            act=item.act,
            statement=_statement(item, number, previous),
        )
    if isinstance(item, DeliveryDraft):
        return DeliveryReceipt(
            salt=salt,
            scope=item.scope,
            number=number,
            time_ms=time_ms,
            previous=previous,
            use_id=item.use_id,
            provider=item.provider,
            consumer=item.consumer,
            outcome=item.outcome,
            origin=item.origin,
            leaf_hash=item.leaf_hash,
            leaf_index=item.leaf_index,
            tree_size=item.tree_size,
            result_digest=item.result_digest,
            quantities=item.quantities,
            reasons=item.reasons,
        )
    return UseReceipt(
        salt=salt,
        scope=item.scope,
        number=number,
        time_ms=time_ms,
        previous=previous,
        use_id=item.use_id,
        provider=item.provider,
        consumer=item.consumer,
        outcome=item.outcome,
        purpose=item.purpose,
        agreement_digest=item.agreement_digest,
        policy_digest=item.policy_digest,
        request_digest=item.request_digest,
        result_digest=item.result_digest,
        quantities=item.quantities,
        reasons=item.reasons,
    )


def _statement(item: ActDraft, number: int, previous: bytes) -> bytes:
    if isinstance(item.statement, bytes):
        return item.statement
    try:
        return item.statement(number - 1, previous)
    except ConnectorError:
        raise
    except Exception as error:
        raise InternalError("a statement could not be made") from error
