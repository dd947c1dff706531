"""Transfer messages on the wire, as parts of ``NegotiationService``'s envelopes."""

from __future__ import annotations

from connector._pb.dataspace.negotiation.v1 import negotiation_pb2 as pb
from connector.errors import PeerFault
from connector.model.transfer import DataAddress, TransferError, TransferMessage, TransferType


def transfer_value(envelope: pb.Envelope) -> TransferMessage | TransferError:
    """Raises ``PeerFault`` for an envelope that holds nothing known."""
    match envelope.WhichOneof("message"):
        case "transfer_request":
            request = envelope.transfer_request
            return TransferMessage(
                TransferType.REQUEST,
                request.consumer_pid,
                "",
                agreement_id=request.agreement_id,
                format=request.format,
                data_address=_address_value(request),
            )
        case "transfer_start":
            start = envelope.transfer_start
            return TransferMessage(
                TransferType.START,
                start.consumer_pid,
                start.provider_pid,
                data_address=_address_value(start),
            )
        case "transfer_completion":
            end = envelope.transfer_completion
            return TransferMessage(TransferType.COMPLETION, end.consumer_pid, end.provider_pid)
        case "transfer_suspension":
            return _explained(TransferType.SUSPENSION, envelope.transfer_suspension)
        case "transfer_termination":
            return _explained(TransferType.TERMINATION, envelope.transfer_termination)
        case "transfer_error":
            error = envelope.transfer_error
            return TransferError(error.consumer_pid, error.provider_pid, error.code, error.reason)
    raise PeerFault("the peer sent an envelope without a message")


def _explained(
    type: TransferType, wire: pb.TransferSuspensionMessage | pb.TransferTerminationMessage
) -> TransferMessage:
    return TransferMessage(
        type, wire.consumer_pid, wire.provider_pid, code=wire.code, reason=wire.reason
    )


def _address_value(
    wire: pb.TransferRequestMessage | pb.TransferStartMessage,
) -> DataAddress | None:
    if not wire.HasField("data_address"):
        return None
    address = wire.data_address
    return DataAddress(
        address.endpoint_type,
        address.endpoint,
        tuple((each.name, each.value) for each in address.endpoint_properties),
    )


def transfer_envelope(content: TransferMessage | TransferError) -> pb.Envelope:
    pids = {"consumer_pid": content.consumer_pid, "provider_pid": content.provider_pid}
    if isinstance(content, TransferError):
        error = pb.TransferError(**pids, code=content.code, reason=content.reason)
        return pb.Envelope(transfer_error=error)
    told = {**pids, "code": content.code, "reason": content.reason}
    match content.type:
        case TransferType.REQUEST:
            request = pb.TransferRequestMessage(
                consumer_pid=content.consumer_pid,
                agreement_id=content.agreement_id,
                format=content.format,
                data_address=_address(content.data_address),
            )
            return pb.Envelope(transfer_request=request)
        case TransferType.START:
            start = pb.TransferStartMessage(**pids, data_address=_address(content.data_address))
            return pb.Envelope(transfer_start=start)
        case TransferType.COMPLETION:
            return pb.Envelope(transfer_completion=pb.TransferCompletionMessage(**pids))
        case TransferType.SUSPENSION:
            return pb.Envelope(transfer_suspension=pb.TransferSuspensionMessage(**told))
        case TransferType.TERMINATION:
            return pb.Envelope(transfer_termination=pb.TransferTerminationMessage(**told))


def _address(address: DataAddress | None) -> pb.DataAddress | None:
    if address is None:
        return None
    return pb.DataAddress(
        endpoint_type=address.endpoint_type,
        endpoint=address.endpoint,
        endpoint_properties=[
            pb.EndpointProperty(name=name, value=value) for name, value in address.properties
        ],
    )
