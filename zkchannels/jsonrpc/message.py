"""Reads and writes the objects of the JSON-RPC 2.0 specification (sections 4 to 6); no I/O."""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from zkchannels.jsonrpc.errors import INVALID_REQUEST, PARSE_ERROR

Identity: TypeAlias = int | float | str | None
"""Value of an `id` member."""


class ErrorBody(Struct):
    """The `error` member of an answer."""

    code: int
    message: str
    data: Raw | UnsetType = UNSET


class Message(Struct):
    """A request or notification (`method` is set), or an answer (it is not)."""

    jsonrpc: Literal["2.0"]
    id: Identity | UnsetType = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: ErrorBody | UnsetType = UNSET


class Malformed(Struct):
    """What could not be read, and the error that tells the sender of a request so.

    `is_answer`: whether it is a broken answer, which is never replied to; None if that is unknown.
    """

    code: int
    text: str
    id: Identity = None
    is_answer: bool | None = False


class _Request(Struct, tag_field="jsonrpc", tag="2.0"):
    id: int
    method: str
    params: Any


class _Notification(Struct, tag_field="jsonrpc", tag="2.0"):
    method: str
    params: Any


class _Success(Struct, tag_field="jsonrpc", tag="2.0"):
    id: Identity
    result: Any


class _ErrorOut(Struct, omit_defaults=True):
    code: int
    message: str
    data: Any = None


class _Failure(Struct, tag_field="jsonrpc", tag="2.0"):
    id: Identity
    error: _ErrorOut


_encode = msgspec.json.Encoder().encode
_decode_message = msgspec.json.Decoder(Message).decode
_decode_raw = msgspec.json.Decoder(Raw).decode
_decode_elements = msgspec.json.Decoder(list[Raw]).decode
_decode_members = msgspec.json.Decoder(dict[str, Raw]).decode
_decode_identity = msgspec.json.Decoder(Identity).decode

UNREADABLE = (msgspec.DecodeError, RecursionError, UnicodeDecodeError)
"""What msgspec raises for input that is no JSON, is nested too deeply, or is of the wrong type."""


def encode_request(identity: int, method: str, params: Any) -> bytes:
    """Return a request without its newline."""
    return _encode(_Request(identity, method, params))


def encode_notification(method: str, params: Any) -> bytes:
    """Return a notification without its newline."""
    return _encode(_Notification(method, params))


def encode_success(identity: Identity, result: Any) -> bytes:
    """Return an answer with a result, without its newline."""
    return _encode(_Success(identity, result))


def encode_result(result: Any) -> bytes:
    """Return a result alone."""
    return _encode(result)


def encode_failure(identity: Identity, code: int, message: str, data: Any = None) -> bytes:
    """Return an answer with an error, without its newline; data None is left out."""
    return _encode(_Failure(identity, _ErrorOut(code, message, data)))


def is_batch(line: bytes) -> bool:
    """Return whether a line holds an array rather than one object."""
    return line[:1] == b"[" or line.lstrip(b" \t\r")[:1] == b"["


def read_message(text: bytes | Raw) -> Message | Malformed:
    """Read one object, a line or an element of a batch; never raises."""
    try:
        if isinstance(text, bytes) and not text.isascii():
            text.decode()
        message = _decode_message(text)
    except UNREADABLE as error:
        return _diagnose(text, error)
    if message.method is UNSET:
        return _checked_answer(message)
    if message.result is not UNSET or message.error is not UNSET:
        return Malformed(
            INVALID_REQUEST, "a request has neither result nor error", _identity(message)
        )
    if message.params is not UNSET and memoryview(message.params)[0] not in b"{[":
        return Malformed(INVALID_REQUEST, "params are an object or an array", _identity(message))
    return message


def read_batch(line: bytes, *, max_batch: int) -> list[Message | Malformed] | Malformed:
    """Read an array of objects; Malformed when it is no batch at all; never raises."""
    try:
        if not line.isascii():
            line.decode()
        elements = _decode_elements(line)
    except RecursionError:
        return _TOO_DEEP
    except UNREADABLE as error:
        return Malformed(PARSE_ERROR, f"parse error: {error}", is_answer=None)
    if not elements:
        return Malformed(INVALID_REQUEST, "a batch is not empty")
    if len(elements) > max_batch:
        return Malformed(INVALID_REQUEST, f"a batch has at most {max_batch} elements")
    return [read_message(element) for element in elements]


_TOO_DEEP = Malformed(INVALID_REQUEST, "nested too deeply", is_answer=None)


def _identity(message: Message) -> Identity:
    return None if message.id is UNSET else message.id


def _checked_answer(message: Message) -> Message | Malformed:
    has_result = message.result is not UNSET
    has_error = message.error is not UNSET
    if not has_result and not has_error:
        return Malformed(INVALID_REQUEST, "a request has a method", _identity(message))
    if (has_result and has_error) or message.id is UNSET:
        return Malformed(
            INVALID_REQUEST, "an answer has an id and either result or error", is_answer=True
        )
    return message


def _diagnose(text: bytes | Raw, cause: Exception) -> Malformed:
    """Tell apart what is no JSON, and what is JSON but no message; find its id if there is one."""
    try:
        if isinstance(text, bytes):
            text.decode()
        _decode_raw(text)
    except RecursionError:
        return _TOO_DEEP
    except UNREADABLE as error:
        return Malformed(PARSE_ERROR, f"parse error: {error}", is_answer=None)
    try:
        members = _decode_members(text)
    except UNREADABLE:
        return Malformed(INVALID_REQUEST, "a request is an object")
    is_answer = "method" not in members and bool(members.keys() & {"result", "error"})
    try:
        identity = _decode_identity(members["id"]) if "id" in members else None
    except UNREADABLE:
        return Malformed(
            INVALID_REQUEST, "an id is a string, a number or null", is_answer=is_answer
        )
    return Malformed(INVALID_REQUEST, f"invalid request: {cause}", identity, is_answer)
