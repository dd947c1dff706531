"""Protobuf messages as JSON: ProtoJSON (protobuf.dev/programming-guides/json), read strictly.

One thing is ours: a field of type bytes whose ``media_type`` (management.proto) is
``application/json`` is the JSON value itself, not base64 of it; null is an empty field.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from google.protobuf import json_format
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

from connector._pb.dataspace.management.v1.management_pb2 import media_type
from connector.errors import InternalError, InvalidInput
from connector.model import fields

MAX_BYTES = 4 << 20  # of a request
MAX_INSIDE = 80 << 20  # of a document in an answer, which is our own
JSON = "application/json"


def media_type_of(field: FieldDescriptor) -> str:
    """What is in a field of type bytes; empty if the field does not say."""
    return str(field.GetOptions().Extensions[media_type])


def read(data: bytes, message: Message) -> None:
    """Fill an empty message. No bytes at all are an empty object.

    Raises ``InvalidInput``: no JSON, no object, a field that is not known, there twice, or of
    another type.
    """
    value = fields.parse_json(data or b"{}", limit=MAX_BYTES, what="request")
    plain = _walk(message.DESCRIPTOR, fields.as_object(value, "request"), _pack)
    try:
        json_format.ParseDict(plain, message)
    except (json_format.ParseError, ValueError, TypeError, OverflowError, RecursionError) as error:
        raise InvalidInput(f"request: {_told(error)}") from error


def show(message: Message) -> dict[str, Any]:
    """The message as JSON, with the fields that have their defaults."""
    plain = json_format.MessageToDict(message, always_print_fields_with_no_presence=True)
    found = _walk(message.DESCRIPTOR, plain, _unpack)
    if not isinstance(found, dict):
        raise InternalError("a message is an object")
    return found


def _walk(kind: Any, value: Any, change: Callable[[Any], Any]) -> Any:
    """A copy of a message's JSON, of the type ``kind`` (a ``Descriptor``, of either of protobuf's
    two classes), in which the documents are changed. What has another shape stays as it is: it is
    not for us to refuse."""
    if not isinstance(value, dict):
        return value
    by_name = {name: field for field in kind.fields for name in (field.name, field.json_name)}
    found = {}
    for name, item in value.items():
        field = by_name.get(name)
        if field is not None and field.name != name and field.name in value:
            raise InvalidInput(f"{name}: is there twice, by both its names")
        found[name] = item if field is None else _field(field, item, change)
    return found


def _field(field: FieldDescriptor, value: Any, change: Callable[[Any], Any]) -> Any:
    if field.type == FieldDescriptor.TYPE_BYTES and media_type_of(field) == JSON:
        one = change
    elif field.message_type is not None and not field.message_type.GetOptions().map_entry:
        kind = field.message_type

        def one(item: Any) -> Any:
            return _walk(kind, item, change)
    else:
        return value
    if field.is_repeated:
        return [one(item) for item in value] if isinstance(value, list) else value
    return one(value)


def _pack(value: Any) -> str:
    data = b"" if value is None else fields.encode_json(value)
    return base64.b64encode(data).decode()


def _unpack(value: str) -> Any:
    data = base64.b64decode(value)
    return fields.parse_json(data, limit=MAX_INSIDE) if data else None


def _told(error: Exception) -> str:
    """What was wrong, in one line without the reader's own inner words."""
    text = str(error).splitlines()[0] if str(error) else "cannot be read"
    return text[:200]
