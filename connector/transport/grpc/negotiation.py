"""``NegotiationService``: frames on the wire, both ends of the stream.

The consumer opens the stream and keeps it open while anything may come over it; when it breaks it
is opened again, and resumes (``connector.negotiation.session``).
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import AsyncIterator, Callable

import grpc
import stamina
import structlog

from connector._pb.dataspace.negotiation.v1 import negotiation_pb2 as pb
from connector._pb.dataspace.negotiation.v1 import negotiation_pb2_grpc as rpc
from connector.errors import ConnectorError, PeerFault, Unavailable
from connector.model.content import Content
from connector.model.negotiation import (
    AgreementNotice,
    Channel,
    ContractNegotiationError,
    Message,
    MessageType,
    Party,
)
from connector.model.participant import Participant
from connector.model.transfer import TransferError, TransferMessage
from connector.negotiation.frames import Acknowledgement, Envelope, Frame, Hello
from connector.negotiation.service import Negotiations
from connector.transport.grpc.channels import Channels
from connector.transport.grpc.errors import from_rpc
from connector.transport.grpc.guard import caller
from connector.transport.grpc.transfer_messages import transfer_envelope, transfer_value

log = structlog.get_logger()

LONGEST_WAIT_S = 5.0  # seconds between two attempts to reach a provider
QUEUE = 64  # frames that wait to be sent on one stream

_ACCEPTED, _FINALIZED = "ACCEPTED", "FINALIZED"


class NegotiationServicer(rpc.NegotiationServiceServicer):
    """The provider's end."""

    def __init__(self, negotiations: Negotiations) -> None:
        self._negotiations = negotiations

    async def Exchange(
        self, request_iterator: AsyncIterator[pb.ExchangeRequest], context: object
    ) -> AsyncIterator[pb.ExchangeResponse]:
        channel = Channel(caller().did, Party.PROVIDER)
        outgoing: asyncio.Queue[Frame | None] = asyncio.Queue(QUEUE)
        incoming = (frame_value(request.frame) async for request in request_iterator)

        async def run() -> None:
            try:
                await self._negotiations.exchange(channel, incoming, outgoing.put)
            finally:
                while outgoing.full():  # nobody may be there to read; the next stream sends it
                    outgoing.get_nowait()
                outgoing.put_nowait(None)

        running = asyncio.create_task(run())
        try:
            while (frame := await outgoing.get()) is not None:
                yield pb.ExchangeResponse(frame=frame_message(frame))
            await running
        finally:
            running.cancel()
            await asyncio.wait({running})


class ConsumerStreams:
    """The consumer's ends: one stream for each provider that we deal with.

    ``lookup`` gives the record of an active member or raises.
    """

    def __init__(
        self,
        negotiations: Negotiations,
        channels: Channels,
        lookup: Callable[[str], Participant],
    ) -> None:
        self._negotiations = negotiations
        self._channels = channels
        self._lookup = lookup
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def resume(self) -> None:
        """Open streams to all providers from whom anything may still come."""
        for agreement in await self._negotiations.agreements(Party.CONSUMER):
            if not agreement.address:
                self.keep_open(agreement.peer)
        for negotiation in await self._negotiations.negotiations():
            if negotiation.party is Party.CONSUMER and not negotiation.address:
                self.keep_open(negotiation.peer)

    def keep_open(self, provider: str) -> None:
        if provider not in self._tasks:
            # It outlives the call that asked for it, and is not correlated with it.
            self._tasks[provider] = asyncio.create_task(
                self._keep(provider), context=contextvars.Context()
            )

    async def close(self) -> None:
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _keep(self, provider: str) -> None:
        while True:
            async for attempt in stamina.retry_context(
                on=ConnectorError,
                attempts=None,
                timeout=None,
                wait_initial=0.05,
                wait_max=LONGEST_WAIT_S,
                wait_jitter=0.2,
            ):
                with attempt:
                    await self._exchange(provider)

    async def _exchange(self, provider: str) -> None:
        """One stream, until it breaks. Raises if it broke before the provider said anything."""
        peer = self._channels.to(self._lookup(provider))
        stub = rpc.NegotiationServiceStub(peer.channel)
        call = stub.Exchange(metadata=peer.metadata())
        heard = False

        async def incoming() -> AsyncIterator[Frame]:
            nonlocal heard
            try:
                async for response in call:
                    heard = True
                    yield frame_value(response.frame)
            except grpc.aio.AioRpcError as error:
                raise from_rpc(error) from None

        async def send(frame: Frame) -> None:
            try:
                await call.write(pb.ExchangeRequest(frame=frame_message(frame)))
            except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
                raise Unavailable("the stream to the provider broke") from error

        try:
            await self._negotiations.exchange(Channel(provider, Party.CONSUMER), incoming(), send)
        except ConnectorError as error:
            log.info("a negotiation stream broke", provider=provider, reason=error.message)
            if not heard:
                raise
        finally:
            call.cancel()


def frame_value(frame: pb.Frame) -> Frame:
    """Raises ``PeerFault`` for a frame that says nothing known."""
    match frame.WhichOneof("body"):
        case "hello":
            return Hello(frame.hello.received)
        case "acknowledgement":
            return Acknowledgement(frame.acknowledgement.received)
        case "envelope":
            envelope = frame.envelope
            return Envelope(envelope.sequence, _content(envelope), envelope.correlation_id)
    raise PeerFault("the peer sent an empty frame")


def frame_message(frame: Frame) -> pb.Frame:
    match frame:
        case Hello():
            return pb.Frame(hello=pb.Hello(received=frame.received))
        case Acknowledgement():
            return pb.Frame(acknowledgement=pb.Acknowledgement(received=frame.received))
        case Envelope():
            envelope = _envelope(frame.content)
            envelope.sequence = frame.sequence
            envelope.correlation_id = frame.correlation_id
            return pb.Frame(envelope=envelope)


def _content(envelope: pb.Envelope) -> Content:
    kind = envelope.WhichOneof("message")
    match kind:
        case "contract_request":
            request = envelope.contract_request
            return _message(MessageType.REQUEST, request, offer=request.offer)
        case "contract_offer":
            offer = envelope.contract_offer
            return _message(MessageType.OFFER, offer, offer=offer.offer)
        case "contract_agreement":
            agreement = envelope.contract_agreement
            return _message(
                MessageType.AGREEMENT,
                agreement,
                agreement=agreement.agreement,
                signature=agreement.signature,
                secret=agreement.secret,
            )
        case "contract_agreement_verification":
            verification = envelope.contract_agreement_verification
            return _message(
                MessageType.VERIFICATION, verification, signature=verification.signature
            )
        case "contract_negotiation_event":
            event = envelope.contract_negotiation_event
            types = {_ACCEPTED: MessageType.ACCEPTED, _FINALIZED: MessageType.FINALIZED}
            if event.event_type not in types:
                raise PeerFault("the peer sent an event of an unknown type")
            return _message(types[event.event_type], event)
        case "contract_negotiation_termination":
            end = envelope.contract_negotiation_termination
            return _message(MessageType.TERMINATION, end, code=end.code, reason=end.reason)
        case "contract_negotiation_error":
            error = envelope.contract_negotiation_error
            return ContractNegotiationError(
                error.consumer_pid, error.provider_pid, error.code, error.reason
            )
        case "agreement_notice":
            notice = envelope.agreement_notice
            return AgreementNotice(notice.agreement_id, notice.statement)
    return transfer_value(envelope)


def _message(type: MessageType, wire: object, **fields: object) -> Message:
    return Message(type, wire.consumer_pid, wire.provider_pid, **fields)  # type: ignore[attr-defined,arg-type]


def _envelope(content: Content) -> pb.Envelope:
    if isinstance(content, AgreementNotice):
        notice = pb.AgreementNotice(agreement_id=content.agreement_id, statement=content.statement)
        return pb.Envelope(agreement_notice=notice)
    if isinstance(content, TransferMessage | TransferError):
        return transfer_envelope(content)
    pids = {"consumer_pid": content.consumer_pid, "provider_pid": content.provider_pid}
    if isinstance(content, ContractNegotiationError):
        error = pb.ContractNegotiationError(**pids, code=content.code, reason=content.reason)
        return pb.Envelope(contract_negotiation_error=error)
    match content.type:
        case MessageType.REQUEST:
            request = pb.ContractRequestMessage(**pids, offer=content.offer)
            return pb.Envelope(contract_request=request)
        case MessageType.OFFER:
            offer = pb.ContractOfferMessage(**pids, offer=content.offer)
            return pb.Envelope(contract_offer=offer)
        case MessageType.AGREEMENT:
            agreement = pb.ContractAgreementMessage(
                **pids,
                agreement=content.agreement,
                signature=content.signature,
                secret=content.secret,
            )
            return pb.Envelope(contract_agreement=agreement)
        case MessageType.VERIFICATION:
            verification = pb.ContractAgreementVerificationMessage(
                **pids, signature=content.signature
            )
            return pb.Envelope(contract_agreement_verification=verification)
        case MessageType.ACCEPTED | MessageType.FINALIZED:
            accepted = content.type is MessageType.ACCEPTED
            event = pb.ContractNegotiationEventMessage(
                **pids, event_type=_ACCEPTED if accepted else _FINALIZED
            )
            return pb.Envelope(contract_negotiation_event=event)
        case MessageType.TERMINATION:
            end = pb.ContractNegotiationTerminationMessage(
                **pids, code=content.code, reason=content.reason
            )
            return pb.Envelope(contract_negotiation_termination=end)
