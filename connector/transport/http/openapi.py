"""The OpenAPI 3.1 document of services that are offered as JSON, made from their descriptors.

Descriptions are the comments of the .proto file, which ``make proto`` keeps beside the generated
code. How a message is JSON is in ``protojson``, how calls are made in ``management``.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from connector.transport.http.errors import PROBLEM
from connector.transport.http.protojson import JSON, media_type_of

EVENTS = "text/event-stream"
OPENAPI = "3.1.1"

# As ProtoJSON has them. A JSON number is not exact beyond 2**53, so that 64 bits are text; they are
# read as numbers too.
_INT32: Mapping[str, Any] = {"type": "integer", "format": "int32"}
_UINT32: Mapping[str, Any] = {"type": "integer", "format": "uint32", "minimum": 0}
_INT64: Mapping[str, Any] = {"type": "string", "format": "int64"}
_UINT64: Mapping[str, Any] = {"type": "string", "format": "uint64"}
_SCALARS: Mapping[int, Mapping[str, Any]] = {
    FieldDescriptor.TYPE_BOOL: {"type": "boolean"},
    FieldDescriptor.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
    FieldDescriptor.TYPE_DOUBLE: {"type": "number", "format": "double"},
    FieldDescriptor.TYPE_FIXED32: _UINT32,
    FieldDescriptor.TYPE_FIXED64: _UINT64,
    FieldDescriptor.TYPE_FLOAT: {"type": "number", "format": "float"},
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_SFIXED32: _INT32,
    FieldDescriptor.TYPE_SFIXED64: _INT64,
    FieldDescriptor.TYPE_SINT32: _INT32,
    FieldDescriptor.TYPE_SINT64: _INT64,
    FieldDescriptor.TYPE_STRING: {"type": "string"},
    FieldDescriptor.TYPE_UINT32: _UINT32,
    FieldDescriptor.TYPE_UINT64: _UINT64,
}
_PROBLEM: Mapping[str, Any] = {
    "type": "object",
    "description": "What went wrong (RFC 9457).",
    "required": ["title", "status", "detail", "code", "hint"],
    "properties": {
        "title": {"type": "string", "description": "The HTTP status in words."},
        "status": {"type": "integer", "description": "The HTTP status: whose fault it is."},
        "detail": {"type": "string", "description": "What went wrong, for a person."},
        "code": {"type": "string", "description": "What went wrong, stable and for machines."},
        "hint": {"type": "string", "description": "What to do; may be empty."},
        "reasons": {
            "type": "array",
            "description": "Of a refusal: the failing terms.",
            "items": {
                "type": "object",
                "properties": {
                    name: {"type": "string"} for name in ("term", "observed", "allowed")
                },
            },
        },
    },
}


@cache
def comments() -> Mapping[str, str]:
    """The comments of the management API by the full name of what they are about."""
    found: Mapping[str, str] = json.loads((files("connector._pb") / "comments.json").read_bytes())
    return found


def raw_field(kind: Descriptor) -> FieldDescriptor | None:
    """The field that can be the whole answer, as bytes of its own media type."""
    return next(
        (field for field in kind.fields if media_type_of(field) not in ("", JSON)),
        None,
    )


def document(
    calls: Iterable[tuple[str, MethodDescriptor]], *, title: str, version: str
) -> dict[str, Any]:
    """``calls``: each method by the path at which it is called."""
    schemas: dict[str, Any] = {"Problem": _PROBLEM}
    paths = {path: {"post": _operation(method, schemas)} for path, method in calls}
    return {
        "openapi": OPENAPI,
        "info": {
            "title": title,
            "version": version,
            "description": "What the operator of a node of a trusted data space may ask of it. "
            "Every call is a POST with a JSON object. Numbers of 64 bits are strings, as in "
            "ProtoJSON. Over the Unix socket no token is needed.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "What is in the node's file run/management.token.",
                }
            },
        },
    }


def _operation(method: MethodDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    asked, answered = method.input_type, method.output_type
    reference = _reference(answered, schemas)
    content: dict[str, Any] = {}
    if method.server_streaming:
        content[EVENTS] = {
            "schema": {
                "type": "string",
                "description": f"Server-sent events: the data of each is a {answered.name}; one "
                "of type error, the last, has a Problem.",
            },
            "x-event-schema": reference,
        }
    else:
        content[JSON] = {"schema": reference}
    if (field := raw_field(answered)) is not None:
        content[media_type_of(field)] = {}  # OpenAPI 3.1: bytes, of which no schema says anything
    return {
        "operationId": method.name,
        "tags": [method.containing_service.name],
        "summary": _comment(method.full_name),
        "requestBody": {
            "required": bool(asked.fields),
            "content": {JSON: {"schema": _reference(asked, schemas)}},
        },
        "responses": {
            "200": {"description": "Done.", "content": content},
            "default": {
                "description": "Not done.",
                "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
            },
        },
    }


def _reference(kind: Descriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    """A reference to the schema of a message, which is put among ``schemas``."""
    if kind.name not in schemas:
        schema: dict[str, Any] = {"type": "object"}
        schemas[kind.name] = schema
        if kind.name.endswith("Request"):
            schema["additionalProperties"] = False  # answers may grow
        if text := _comment(kind.full_name):
            schema["description"] = text
        schema["properties"] = {field.json_name: _field(field, schemas) for field in kind.fields}
    return {"$ref": f"#/components/schemas/{kind.name}"}


def _field(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    text = _comment(field.full_name)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        values = _one(field.message_type.fields_by_name["value"], schemas)
        return {"type": "object", "additionalProperties": values, "description": text}
    if field.is_repeated:
        return {"type": "array", "items": _one(field, schemas), "description": text}
    return {**_one(field, schemas), "description": text}


def _one(field: FieldDescriptor, schemas: dict[str, Any]) -> dict[str, Any]:
    if field.message_type is not None:
        return _reference(field.message_type, schemas)
    if field.type == FieldDescriptor.TYPE_BYTES and (found := media_type_of(field)):
        if found == JSON:
            return {"type": ["object", "null"]}
        return {**_SCALARS[field.type], "contentMediaType": found}
    if field.enum_type is not None:
        return {"type": "string", "enum": [value.name for value in field.enum_type.values]}
    return dict(_SCALARS[field.type])


def _comment(name: str) -> str:
    return comments().get(name, "")
