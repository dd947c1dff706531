"""Errors over the wire and back, and what a hostile peer may put into them."""

import json

import grpc
import pytest
from grpc.aio import AioRpcError, Metadata

from connector import errors
from connector.metering.witness import StaleSize
from connector.model.correlation import MAX_CORRELATION
from connector.ports.query import QueryFailed
from connector.transport.calls import bind_correlation, correlation_id
from connector.transport.grpc.errors import MAX_TRAILER, from_rpc, status_of, trailers

REASON = errors.Reason("purpose", "“ads” 广告", "tourism")


def received(code: grpc.StatusCode, message: str = "", **trailing: str | bytes) -> AioRpcError:
    metadata = Metadata(*((key.replace("_", "-"), value) for key, value in trailing.items()))
    return AioRpcError(code, Metadata(), metadata, message)


def over_the_wire(error: errors.ConnectorError) -> errors.ConnectorError:
    trailing = {key.replace("-", "_"): value for key, value in trailers(error)}
    return from_rpc(received(status_of(error), error.message, **trailing))


@pytest.mark.parametrize(
    "kind",
    [
        errors.InvalidInput,
        errors.ConfigError,
        errors.Unauthenticated,
        errors.NotFound,
        errors.Conflict,
        errors.RateLimited,
        errors.PeerFault,
        errors.VerificationFailed,
        errors.Unavailable,
        errors.InternalError,
    ],
)
def test_an_error_keeps_its_class(kind) -> None:
    found = over_the_wire(kind("what happened", hint="什么"))
    assert type(found) is kind
    assert (found.message, found.hint) == ("what happened", "什么")


def test_a_refusal_keeps_its_reasons() -> None:
    found = over_the_wire(errors.Refused([REASON, REASON], hint="ask for less"))
    assert isinstance(found, errors.Refused)
    assert found.reasons == (REASON, REASON)


@pytest.mark.parametrize(
    ("error", "kind"),
    [(StaleSize(7), errors.Conflict), (QueryFailed("query_memory"), errors.InternalError)],
)
def test_an_error_of_a_package_becomes_the_nearest_that_all_know(error, kind) -> None:
    assert type(over_the_wire(error)) is kind


def test_reasons_that_do_not_fit_leave_a_refusal() -> None:
    found = over_the_wire(errors.Refused([errors.Reason("purpose", "x" * MAX_TRAILER, "y")]))
    assert isinstance(found, errors.Refused)
    assert [reason.term for reason in found.reasons] == ["policy"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.Unavailable),
        (grpc.StatusCode.CANCELLED, errors.Unavailable),
        (grpc.StatusCode.UNIMPLEMENTED, errors.PeerFault),
        (grpc.StatusCode.UNKNOWN, errors.PeerFault),
        (grpc.StatusCode.PERMISSION_DENIED, errors.PeerFault),
    ],
)
def test_what_grpc_says_by_itself(status, kind) -> None:
    assert type(from_rpc(received(status, "ipv4:10.0.0.7:9443: connect failed"))) is kind


def test_addresses_stay_in_the_log() -> None:
    found = from_rpc(received(grpc.StatusCode.UNAVAILABLE, "ipv4:10.0.0.7:9443: connect failed"))
    assert "10.0.0.7" not in found.message


HOSTILE_REASONS = {
    "no JSON": b"{",
    "no list": b"{}",
    "no text": b"[[1, 2, 3]]",
    "two parts": b'[["a", "b"]]',
    "no UTF-8": b"\xff",
    "deep": b"[" * 5000,
    "empty": b"",
    "none": b"[]",
}


@pytest.mark.parametrize("name", HOSTILE_REASONS)
def test_a_refusal_always_has_a_reason(name: str) -> None:
    found = from_rpc(
        received(
            grpc.StatusCode.PERMISSION_DENIED,
            "no",
            error_code="refused",
            error_reasons_bin=HOSTILE_REASONS[name],
        )
    )
    assert isinstance(found, errors.Refused)
    assert found.reasons == (errors.Reason("policy", "no", ""),)


def test_bytes_that_are_no_text_do_no_harm() -> None:
    found = from_rpc(
        received(grpc.StatusCode.NOT_FOUND, "x", error_code="not_found", error_hint_bin=b"\xff\xfe")
    )
    assert isinstance(found, errors.NotFound)
    json.dumps(found.hint)


@pytest.mark.parametrize("given", ["", "a b", "a\n{}", "é", "x" * (MAX_CORRELATION + 1), '"'])
def test_a_correlation_id_that_could_forge_a_log_line_is_replaced(given: str) -> None:
    bind_correlation(given)
    assert correlation_id() not in ("", given)
    assert correlation_id().isalnum()


def test_a_correlation_id_goes_on() -> None:
    bind_correlation("abc123")
    assert correlation_id() == "abc123"
