"""Requests of every shape that the OpenAPI document allows, to real nodes: whatever is asked, the
answer is one of the document's, and never that we failed."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.space import PURPOSE, contract, offer_terms

pytestmark = pytest.mark.e2e

EACH = 10  # requests of each call
TEXTS = (
    "",
    "x",
    "\0",
    "a\nb",
    "名\N{GRINNING FACE}",
    "x" * 3000,
    "../../etc/passwd",
    "did:web:provider.example",
    "did:web:nobody.example",
    "did:web:",
    "urn:uuid:11111111-1111-4111-8111-111111111111",
    "2026-12-31T00:00:00Z",
    "0001-01-01T00:00:00+14:00",
    "general",
    "approve",
    "counter",
    "active",
    "provider",
    "SELECT 1",
    "https://127.0.0.1/",
    PURPOSE,
)
NUMBERS = (0, 1, 2, -1, 255, 2**31 - 1, 2**32 - 1)
DOCUMENTS = (
    None,
    {},
    {"permission": []},
    {"permission": [{"action": "use"}]},
    {"permission": [{"action": "use", "constraint": [{"leftOperand": "count"}]}]},
    {"permission": {"action": []}},
    {"a": {"b": [1, 1.5, None, True, "x"]}},
    offer_terms(uses=3),
)


def value(
    schema: dict[str, Any], found: dict[str, Any], known: tuple[str, ...], dice: random.Random
) -> Any:
    """Something that the schema allows, more or less: numbers are also out of their range."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return value(found["components"]["schemas"][name], found, known, dice)
    match schema["type"]:
        case "object":
            return {
                name: value(one, found, known, dice)
                for name, one in schema.get("properties", {}).items()
                if dice.random() < 0.8
            }
        case "array":
            return [value(schema["items"], found, known, dice) for _ in range(dice.randrange(3))]
        case "boolean":
            return dice.random() < 0.5
        case "number":
            return dice.choice((0, 0.01, 0.1, 1e-300, -1, "NaN", "-Infinity"))
        case "integer":
            return dice.choice(NUMBERS)
        case ["object", "null"]:
            return dice.choice(DOCUMENTS)
    if schema.get("format") in ("int64", "uint64"):
        return str(dice.choice((*NUMBERS, 2**53, 2**63, 2**64 - 1)))
    if schema.get("contentEncoding") == "base64":
        return dice.choice(("", "AA==", "LS0tLS0=", "%%%"))
    return dice.choice(known * 3 + TEXTS)


@pytest.mark.parametrize("seed", [1])
async def test_no_request_makes_a_node_fail(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)
    async with contract(tmp_path) as held:
        async with held.space.node("provider") as node:
            (other,) = await node.negotiations()
        known = (held.dataset_id, held.agreement, other.pid, str(tmp_path / "people.csv"))
        members = held.space.members
        for process in (members["provider"], members["consumer"], held.space.directory):
            transport = httpx.AsyncHTTPTransport(uds=f"{process.data}/run/management-http.sock")
            async with httpx.AsyncClient(
                transport=transport, base_url="http://node", timeout=60
            ) as client:
                document = (await client.get("/openapi.json")).json()
                for path in document["paths"]:
                    await _ask(client, document, path, known, dice)
                assert (await client.post("/v1/get-status")).status_code == 200
            assert "call failed" not in process.log
            assert '"level": "error"' not in process.log


async def _ask(
    client: httpx.AsyncClient,
    document: dict[str, Any],
    path: str,
    known: tuple[str, ...],
    dice: random.Random,
) -> None:
    call = document["paths"][path]["post"]
    schema = call["requestBody"]["content"]["application/json"]["schema"]
    if path == "/v1/follow-events":
        return  # it does not end
    for _ in range(EACH):
        request = value(schema, document, known, dice)
        if path == "/v1/negotiate":
            request["followSeconds"] = dice.choice((0.01, -1, "NaN"))
        answer = await client.post(path, json=request)
        told = f"{path} {json.dumps(request)[:2000]} {answer.text[:500]}"
        assert answer.status_code in (200, 400, 403, 404, 409, 410, 429, 502, 503), told
        if answer.status_code != 200:
            assert answer.json()["code"] != "internal", told
