"""The Dataspace Protocol's door: what each endpoint answers, and what a refusal looks like."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import pytest

from connector.errors import Unavailable
from connector.identity.statements import sign_document
from connector.model.negotiation import AgreementNotice, AgreementState, Party, State
from connector.model.participant import unb64url
from connector.negotiation.agreements import ended
from connector.negotiation.automation import Automation
from connector.transport.http import body as bodies
from connector.transport.http.dsp import codec, reading, schemas
from connector.transport.http.dsp.holds import Holds
from tests.dsp_doors import (
    ANOTHER_TOKEN,
    CALLBACK,
    CONTEXT,
    STRANGER,
    Caller,
    Place,
    message,
    opened,
    request_body,
)
from tests.negotiators import DATASET, TOURISM, Clock, Node, eventually, key_of

MANUAL = Automation(decide=False, agree=False, verify=False, finalize=False, start=False)


@pytest.fixture
async def place():
    async with opened() as place:
        yield place


@pytest.fixture
async def manual():
    async with opened(automation=MANUAL) as place:
        yield place


def refused(response, status: int, kind: str = "ContractNegotiationError") -> dict:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    schemas.check(kind, response.json())
    assert response.json()["reason"]
    return response.json()


async def requested(place: Place, caller: Caller, pid: str = "their-1") -> str:
    response = await caller.post("/negotiations/request", request_body(pid))
    assert response.status_code == 201, response.text
    schemas.check("ContractNegotiation", response.json())
    return response.json()["providerPid"]


async def state_of(caller: Caller, pid: str, kind: str = "negotiations") -> str:
    response = await caller.get(f"/{kind}/{pid}")
    assert response.status_code == 200
    return response.json()["state"]


async def test_versions_are_open_to_everybody(place):
    caller = Caller(place)
    response = await caller.client.get("/.well-known/dspace-version")
    schemas.check("VersionResponse", response.json())
    (version,) = response.json()["protocolVersions"]
    assert (version["version"], version["path"], version["binding"]) == (
        "2025-1",
        "/2025-1",
        "HTTPS",
    )


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/negotiations", 404, "ContractNegotiationError"),
        ("DELETE", "/negotiations/1", 405, "ContractNegotiationError"),
        ("GET", "/transfers/1/start", 405, "TransferError"),
        ("POST", "/transfers/1/start/", 404, "TransferError"),
        ("GET", "/nowhere", 404, "CatalogError"),
        ("PUT", "/catalog/request", 405, "CatalogError"),
    ],
)
async def test_what_is_not_there_is_said_in_the_protocol_s_words(place, method, path, status, kind):
    client = Caller(place).client
    response = await client.request(method, f"/2025-1{path}")
    refused(response, status, kind)
    assert ("allow" in response.headers) is (status == 405)


async def test_a_request_ends_in_an_agreement(place):
    caller = Caller(place)
    pid = await requested(place, caller)
    assert await state_of(caller, pid) == "AGREED"
    (agreement,) = await place.posts()
    assert agreement["consumerPid"] == "their-1"
    assert agreement["agreement"]["assignee"] == STRANGER
    assert not [key for key in agreement if key.endswith(("document", "signature", "secret"))]
    body = message("ContractAgreementVerificationMessage", "their-1", pid)
    response = await caller.post(f"/negotiations/{pid}/agreement/verification", body)
    assert response.status_code == 200
    assert response.json()["state"] == "FINALIZED"
    (final,) = await place.posts()
    assert final["eventType"] == "FINALIZED"
    negotiation = await place.node.only()
    assert negotiation.address == CALLBACK  # without the slash at its end
    kept = await place.node.service.agreement(negotiation.agreement_id)
    assert kept.state is AgreementState.ACTIVE
    assert ("POST /negotiations/request", "ok") in place.observed


async def test_a_first_message_that_comes_again_begins_nothing_new(place):
    caller = Caller(place)
    first = await caller.post("/negotiations/request", request_body())
    again = await caller.post("/negotiations/request", request_body())
    assert (again.status_code, again.json()) == (201, first.json())
    other = await caller.post("/negotiations/request", request_body(target="urn:uuid:other"))
    refused(other, 400)


async def test_a_message_that_comes_again_is_answered_as_the_first_time(manual):
    caller = Caller(manual)
    pid = await requested(manual, caller)
    counter = message("ContractRequestMessage", "their-1", pid, offer=request_body()["offer"])
    await manual.node.service.counter(pid, DATASET.offers[0].terms)
    for number in (1, 2):
        body = {**counter, "@id": "message-1"}
        response = await caller.post(f"/negotiations/{pid}/request", body)
        assert (response.status_code, response.json()["state"]) == (200, "REQUESTED"), number
    # The same words in a new message are no repetition, and illegal where they are.
    refused(await caller.post(f"/negotiations/{pid}/request", {**counter, "@id": "message-2"}), 400)
    # A repetition that comes after we have moved on changes nothing either.
    await manual.node.service.counter(pid, DATASET.offers[0].terms)
    response = await caller.post(f"/negotiations/{pid}/request", {**counter, "@id": "message-1"})
    assert (response.status_code, response.json()["state"]) == (200, "OFFERED")
    response = await caller.post(f"/negotiations/{pid}/request", {**counter, "@id": "message-3"})
    assert (response.status_code, response.json()["state"]) == (200, "REQUESTED")


async def test_a_repetition_without_an_id_of_its_own(manual):
    caller = Caller(manual)
    pid = await requested(manual, caller)
    termination = message(
        "ContractNegotiationTerminationMessage", "their-1", pid, code="1", reason=["no more"]
    )
    for _ in range(2):
        response = await caller.post(f"/negotiations/{pid}/termination", termination)
        assert (response.status_code, response.json()["state"]) == (200, "TERMINATED")
    refused(
        await caller.post(f"/negotiations/{pid}/termination", {**termination, "code": "2"}), 400
    )


async def test_illegal_moves_are_refused_and_change_nothing(manual):
    caller = Caller(manual)
    pid = await requested(manual, caller)
    for action, body in {
        "events": message("ContractNegotiationEventMessage", "their-1", pid, eventType="ACCEPTED"),
        "agreement/verification": message("ContractAgreementVerificationMessage", "their-1", pid),
        "request": message("ContractRequestMessage", "their-1", pid, offer=request_body()["offer"]),
    }.items():
        said = refused(await caller.post(f"/negotiations/{pid}/{action}", body), 400)
        assert (said["providerPid"], said["consumerPid"]) == (pid, "their-1")
        assert said["code"] == "conflict"
    events = message("ContractNegotiationEventMessage", "their-1", pid, eventType="FINALIZED")
    said = refused(await caller.post(f"/negotiations/{pid}/events", events), 400)
    assert "consumer" in said["reason"][0]
    assert await state_of(caller, pid) == "REQUESTED"


async def test_who_may_not_see_a_process_is_told_what_is_told_of_none(place):
    caller, other = Caller(place), Caller(place, ANOTHER_TOKEN)
    pid = await requested(place, caller)
    told = (await other.get("/negotiations/urn:uuid:nothing")).content
    assert (await other.get(f"/negotiations/{pid}")).content == told
    refused(await other.get(f"/negotiations/{pid}"), 404)
    refused(await other.get(f"/transfers/{pid}"), 404, "TransferError")
    body = message("ContractNegotiationTerminationMessage", "their-1", pid)
    theirs = await other.post(f"/negotiations/{pid}/termination", body)
    none = await other.post("/negotiations/urn:uuid:nothing/termination", body)
    assert (theirs.status_code, theirs.content) == (404, none.content)
    # On the other side's paths, and with another process id of the peer, it is not there either.
    offers = message("ContractOfferMessage", "their-1", pid, offer=request_body()["offer"])
    refused(await caller.post(f"/negotiations/{pid}/offers", offers), 404)
    body = message("ContractNegotiationTerminationMessage", "their-2", pid)
    refused(await caller.post(f"/negotiations/{pid}/termination", body), 404)
    refused(await caller.get("/negotiations/" + "x" * 5000), 404)
    assert await state_of(caller, pid) == "AGREED"


async def test_the_path_and_the_message_name_one_process(place):
    caller = Caller(place)
    pid = await requested(place, caller)
    other = await requested(place, caller, "their-2")
    body = message("ContractNegotiationTerminationMessage", "their-2", other)
    refused(await caller.post(f"/negotiations/{pid}/termination", body), 400)
    begins = {**request_body("their-3"), "providerPid": pid}
    del begins["callbackAddress"]
    refused(await caller.post("/negotiations/request", begins), 400)
    follows = request_body("their-1")
    refused(await caller.post(f"/negotiations/{pid}/request", follows), 400)


async def test_a_provider_may_begin():
    async with opened(TOURISM) as place:
        caller = Caller(place)
        offer = {**request_body()["offer"], "@id": "offer-7", "target": "dataset-7"}
        body = {
            **CONTEXT,
            "@type": "ContractOfferMessage",
            "providerPid": "theirs",
            "callbackAddress": CALLBACK,
            "offer": offer,
        }
        response = await caller.post("/negotiations/offers", body)
        assert response.status_code == 201
        pid = response.json()["consumerPid"]
        assert (await place.node.only()).waiting
        await place.node.service.approve(pid)
        (accepted,) = await place.posts()
        assert (accepted["eventType"], accepted["providerPid"]) == ("ACCEPTED", "theirs")
        agreement = {
            **offer,
            "@type": "Agreement",
            "@id": "urn:uuid:agreement-7",
            "assigner": STRANGER,
            "assignee": TOURISM,
            "timestamp": "2026-11-23T11:59:00Z",
        }
        body = message("ContractAgreementMessage", pid, "theirs", agreement=agreement)
        response = await caller.post(f"/negotiations/{pid}/agreement", body)
        assert (response.status_code, response.json()["state"]) == (200, "VERIFIED")
        assert [one["@type"] for one in await place.posts()] == [
            "ContractAgreementVerificationMessage"
        ]
        final = message("ContractNegotiationEventMessage", pid, "theirs", eventType="FINALIZED")
        response = await caller.post(f"/negotiations/{pid}/events", final)
        assert (response.status_code, response.json()["state"]) == (200, "FINALIZED")
        assert [one.target for one in [(await place.node.service.agreements())[0].terms]] == [
            "dataset-7"
        ]


async def test_terms_that_mean_nothing_here_end_the_negotiation_with_a_reason(place):
    caller = Caller(place)
    permission = [
        {
            "action": "use",
            "constraint": [
                {
                    "and": [
                        {
                            "leftOperand": "https://x.example/ns#Moon",
                            "operator": "eq",
                            "rightOperand": "full",
                        }
                    ]
                }
            ],
        }
    ]
    response = await caller.post("/negotiations/request", request_body(permission=permission))
    assert (response.status_code, response.json()["state"]) == (201, "TERMINATED")
    (said,) = await place.posts()
    assert said["@type"] == "ContractNegotiationTerminationMessage"
    assert any("Moon" in reason for reason in said["reason"])


async def test_unknown_datasets_and_offers_are_the_message_s_fault(place):
    caller = Caller(place)
    for changes in ({"target": "urn:uuid:nothing"}, {"@id": "nothing"}, {"assigner": TOURISM}):
        refused(await caller.post("/negotiations/request", request_body(**changes)), 400)
    assert await place.node.service.negotiations() == ()


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    {
        "another type": (415, {"Content-Type": "text/plain"}, b"{}"),
        "no type": (415, {"Content-Type": ""}, b"{}"),
        "no JSON": (400, {}, b"{"),
        "no object": (400, {}, b"[]"),
        "another message": (400, {}, json.dumps(message("TransferStartMessage", "c", "p"))),
        "duplicate keys": (400, {}, b'{"@type":"x","@type":"x"}'),
        "too large": (413, {}, b'"' + b"x" * reading.MAX_MESSAGE_BYTES + b'"'),
    }.values(),
)
async def test_bodies_that_are_refused(place, status, headers, body):
    data = body.encode() if isinstance(body, str) else body
    response = await Caller(place).post("/negotiations/request", data, **headers)
    refused(response, status)
    assert await place.node.service.negotiations() == ()


async def test_a_body_that_does_not_come(place, monkeypatch):
    monkeypatch.setattr(bodies, "BODY_S", 0.02)

    async def slow():
        yield b"{"
        await asyncio.sleep(5)

    caller = Caller(place)
    response = await caller.client.post(
        "/2025-1/catalog/request",
        content=slow(),
        headers={"Content-Type": "application/json", **caller.headers()},
    )
    refused(response, 408, "CatalogError")
    assert response.headers["connection"] == "close"


async def test_nobody_gets_in_without_a_token(place):
    caller = Caller(place, "not-a-token-of-anybody")
    for method, path, kind in (
        ("GET", "/negotiations/x", "ContractNegotiationError"),
        ("POST", "/negotiations/request", "ContractNegotiationError"),
        ("POST", "/transfers/request", "TransferError"),
        ("POST", "/catalog/request", "CatalogError"),
        ("GET", "/catalog/datasets/x", "CatalogError"),
    ):
        for headers in ({}, caller.headers(), {"Authorization": "Basic eDp5"}):
            response = await caller.client.request(method, "/2025-1" + path, headers=headers)
            refused(response, 401, kind)
            assert response.headers["www-authenticate"] == "Bearer"


async def test_our_faults_say_nothing_of_themselves(place):
    caller = Caller(place)

    async def broken(*_):
        raise RuntimeError("/etc/secret")

    place.node.service.receive = broken
    said = refused(await caller.post("/negotiations/request", request_body()), 500)
    assert (said["code"], said["reason"]) == ("internal", ["internal error"])

    async def down(*_):
        raise Unavailable("the disk is full")

    place.node.service.receive = down
    refused(await caller.post("/negotiations/request", request_body()), 503)


async def test_a_member_s_messages_carry_what_both_sign(place):
    member = Caller(place, "")
    response = await member.post("/negotiations/request", request_body())
    assert (response.status_code, response.json()["state"]) == (201, "AGREED")
    (agreement,) = await place.posts()
    namespace = "https://w3id.org/tds/profile/v1#"
    assert {key for key in agreement if key.startswith(namespace)} == {
        namespace + name for name in ("document", "signature", "secret")
    }
    pid = response.json()["providerPid"]
    body = message("ContractAgreementVerificationMessage", "their-1", pid)
    refused(await member.post(f"/negotiations/{pid}/agreement/verification", body), 400)
    assert await state_of(member, pid) == "AGREED"


async def test_the_signed_end_of_an_agreement_between_two_who_sign(place):
    """A member ends over HTTPS what it concluded there, and everybody else is told of nothing."""
    member = Caller(place, "")
    bureau = Node(TOURISM)
    response = await member.post("/negotiations/request", request_body())
    pid = response.json()["providerPid"]
    (told,) = await place.posts()
    document = unb64url(told["https://w3id.org/tds/profile/v1#document"])
    signed = sign_document(key_of(TOURISM), "agreement", document)
    body = message("ContractAgreementVerificationMessage", "their-1", pid)
    body["https://w3id.org/tds/profile/v1#signature"] = signed
    verified = await member.post(f"/negotiations/{pid}/agreement/verification", body)
    assert verified.json()["state"] == "FINALIZED"
    await place.posts()
    kept = (await place.node.service.agreements())[0]
    act = ended(bureau.me, replace(kept, party=Party.CONSUMER), "no need", Clock().now())
    path = f"/tds/agreements/{kept.terms.id}/notice"
    notice = codec.encode_notice(AgreementNotice(kept.terms.id, act.statement))
    stranger = Caller(place)
    refused(await stranger.post(path, notice), 404)
    for caller in (member, stranger):  # whether there is such an agreement, this does not say
        said = refused(await caller.post("/tds/agreements/another/notice", notice), 400)
        none = {**notice, "agreementId": "none"}
        assert refused(await caller.post("/tds/agreements/another/notice", none), 400) == said
    refused(await member.post(path, notice | {"statement": act.statement[:-4] + "AAAA"}), 400)
    refused(await member.post(path, notice | {"more": 1}), 400)
    refused(await member.post("/tds/agreements/x/notice", {**notice, "agreementId": "x"}), 404)
    assert (await place.node.service.agreement(kept.terms.id)).state is AgreementState.ACTIVE
    for _ in range(2):  # the second time its answer was lost
        assert (await member.post(path, notice)).status_code == 200
    found = await place.node.service.agreement(kept.terms.id)
    assert (found.state, found.ended_reason) == (AgreementState.ENDED, "no need")
    assert place.node.acts() == ["agreement.concluded", "agreement.ended"]


async def test_transfers(manual):
    """Without an agreement none begins; the machine's own tests go on from there."""
    caller = Caller(manual)
    body = {
        **CONTEXT,
        "@type": "TransferRequestMessage",
        "consumerPid": "their-1",
        "agreementId": "urn:uuid:nothing",
        "format": "HttpData-PULL",
        "callbackAddress": CALLBACK,
    }
    said = refused(await caller.post("/transfers/request", body), 400, "TransferError")
    assert (said["consumerPid"], said["providerPid"]) == ("their-1", "")
    for action, kind in {
        "start": "TransferStartMessage",
        "completion": "TransferCompletionMessage",
        "suspension": "TransferSuspensionMessage",
        "termination": "TransferTerminationMessage",
    }.items():
        body = message(kind, "their-1", "urn:uuid:nothing")
        response = await caller.post(f"/transfers/urn:uuid:nothing/{action}", body)
        refused(response, 404, "TransferError")


async def concluded(place: Place, caller: Caller) -> str:
    """The id of an agreement that is in force."""
    pid = await requested(place, caller)
    body = message("ContractAgreementVerificationMessage", "their-1", pid)
    response = await caller.post(f"/negotiations/{pid}/agreement/verification", body)
    assert response.json()["state"] == "FINALIZED"
    await place.posts()
    return (await place.node.only()).agreement_id


async def test_a_transfer_from_its_request_to_its_end(place):
    caller = Caller(place)
    body = {
        **CONTEXT,
        "@type": "TransferRequestMessage",
        "@id": "message-1",
        "consumerPid": "their-2",
        "agreementId": await concluded(place, caller),
        "format": "HttpData-PULL",
        "callbackAddress": CALLBACK,
    }
    response = await caller.post("/transfers/request", body)
    assert response.status_code == 201, response.text
    schemas.check("TransferProcess", response.json())
    pid = response.json()["providerPid"]
    again = await caller.post("/transfers/request", body)
    assert (again.status_code, again.json()["providerPid"]) == (201, pid)
    other = Caller(place, ANOTHER_TOKEN)
    refused(await other.get(f"/transfers/{pid}"), 404, "TransferError")
    refused(await caller.get(f"/negotiations/{pid}"), 404)

    async def started() -> dict:
        await eventually(place.node.service.posts)
        (start,) = await place.posts()
        assert (start["@type"], start["consumerPid"]) == ("TransferStartMessage", "their-2")
        assert start["dataAddress"]["endpointType"]
        return start

    await started()
    assert await state_of(caller, pid, "transfers") == "STARTED"
    suspension = message("TransferSuspensionMessage", "their-2", pid, code="1", reason=["night"])
    for _ in range(2):  # again: its answer was lost
        response = await caller.post(f"/transfers/{pid}/suspension", suspension)
        assert (response.status_code, response.json()["state"]) == (200, "SUSPENDED")
    done = message("TransferCompletionMessage", "their-2", pid)
    said = refused(await caller.post(f"/transfers/{pid}/completion", done), 400, "TransferError")
    assert (said["providerPid"], said["consumerPid"]) == (pid, "their-2")
    response = await caller.post(
        f"/transfers/{pid}/start", message("TransferStartMessage", "their-2", pid)
    )
    assert response.status_code == 200
    await started()
    response = await caller.post(f"/transfers/{pid}/completion", done)
    assert (response.status_code, response.json()["state"]) == (200, "COMPLETED")
    ended = message("TransferTerminationMessage", "their-2", pid)
    refused(await caller.post(f"/transfers/{pid}/termination", ended), 400, "TransferError")
    assert await state_of(caller, pid, "transfers") == "COMPLETED"


@pytest.mark.parametrize("pid", [0, 5, None, [], {}, ["x"], True])
async def test_process_ids_that_are_no_text(place, pid):
    """Where the schema of a message does not name them, anything could be there."""
    caller = Caller(place)
    body = {
        **CONTEXT,
        "@type": "TransferRequestMessage",
        "consumerPid": "their-1",
        "agreementId": "urn:uuid:nothing",
        "format": "HttpData-PULL",
        "callbackAddress": CALLBACK,
        "providerPid": pid,
    }
    refused(await caller.post("/transfers/request", body), 400, "TransferError")
    body = {**CONTEXT, "@type": "CatalogRequestMessage", "consumerPid": pid}
    refused(await caller.post("/catalog/request", body), 400, "CatalogError")


async def test_what_we_say_next_waits_for_our_answer(place):
    holds = place.holds
    sent = asyncio.Event()
    go = asyncio.Event()

    async def slow_send(event):
        sent.set()
        await go.wait()

    body = json.dumps(request_body()).encode()
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/2025-1/negotiations/request",
        "query_string": b"",
        "headers": [
            (b"content-type", b"application/json"),
            (b"authorization", Caller(place).headers()["Authorization"].encode()),
        ],
    }

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    answering = asyncio.create_task(place.app(scope, receive, slow_send))
    await sent.wait()
    negotiation = await place.node.only()
    assert negotiation.state is State.AGREED
    waiting = asyncio.create_task(holds.free(STRANGER, negotiation.pid))
    await holds.free(STRANGER, "another process")
    await asyncio.sleep(0.01)
    assert not waiting.done()
    go.set()
    await asyncio.gather(answering, waiting)


async def test_a_process_that_is_not_known_yet_holds_all_with_its_peer_until_it_is():
    holds = Holds()
    with holds.answering("them") as first:
        await holds.free("others", "a")
        waiting = asyncio.create_task(holds.free("them", "a"))
        await asyncio.sleep(0)
        assert not waiting.done()
        first.began("b")
        await waiting
        waiting = asyncio.create_task(holds.free("them", "b"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        with holds.answering("them", "a"):  # later than who waits
            pass
    await waiting
    with holds.answering("them"):
        waiting = asyncio.create_task(holds.free("them", "a"))
        await asyncio.sleep(0)
    await waiting  # refused: there is no process
    await holds.free("them", "a")


async def test_correlation_ids_are_taken_over(place, caplog):
    response = await Caller(place).post(
        "/negotiations/request", request_body(), **{"X-Correlation-Id": "abc123"}
    )
    assert response.status_code == 201
    (post,) = await place.node.service.posts()
    assert post.correlation_id == "abc123"


async def test_who_is_cut_off_is_cut_off_while_it_is_served(place):
    asked = asyncio.Event()

    async def slow(*_):
        asked.set()
        await asyncio.Event().wait()

    place.node.service.receive = slow
    calling = asyncio.create_task(Caller(place).post("/negotiations/request", request_body()))
    await asked.wait()
    assert place.calls.cut_participant(TOURISM) == 0
    assert place.calls.cut_participant(STRANGER) == 1
    said = refused(await calling, 401)
    assert (said["code"], said["consumerPid"]) == ("unauthenticated", "their-1")
    assert place.observed == [("POST /negotiations/request", "unauthenticated")]
    assert place.calls.cut_participant(STRANGER) == 0
