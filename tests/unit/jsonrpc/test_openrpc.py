"""The OpenRPC document says of every method what calling it shows."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from tests.unit.jsonrpc.support import GET_DATA, SUM, Nothing
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.jsonrpc.method import Method, openrpc


class Payment(Struct, frozen=True, forbid_unknown_fields=True):
    """A payment to be made."""

    channel: Annotated[str, Meta(min_length=1, description="Which channel.")]
    amount: int
    note: str = ""


class Receipt(Struct, frozen=True):
    """What a payment gives."""

    operation: bytes
    payments: list[Payment]


PAY = Method(
    "pay",
    Payment,
    Receipt,
    summary="Pay.",
    errors=("channel_busy",),
    needs="signer",
    grant="spend",
    example=Payment("coffee", 5),
)


def document(**options: Any) -> dict[str, Any]:
    """Return the document of three methods, as it is sent."""
    described = openrpc("customerd", "0.1.0", [PAY, SUM, GET_DATA], **options)
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(described))
    return decoded


def test_methods_are_described() -> None:
    """Name, summary, parameters in the order of their fields, result, needs and example."""
    described = document()
    assert described["openrpc"] == "1.3.2"
    assert described["info"] == {"title": "customerd", "version": "0.1.0"}
    pay, total, data = described["methods"]
    assert pay == {
        "name": "pay",
        "summary": "Pay.",
        "paramStructure": "either",
        "params": [
            {
                "name": "channel",
                "required": True,
                "description": "Which channel.",
                "schema": {"type": "string", "minLength": 1, "description": "Which channel."},
            },
            {"name": "amount", "required": True, "schema": {"type": "integer"}},
            {"name": "note", "required": False, "schema": {"type": "string", "default": ""}},
        ],
        "result": {"name": "result", "schema": {"$ref": "#/components/schemas/Receipt"}},
        "examples": [
            {
                "name": "pay",
                "params": [
                    {"name": "channel", "value": "coffee"},
                    {"name": "amount", "value": 5},
                    {"name": "note", "value": ""},
                ],
            }
        ],
        "x-needs": "signer",
        "x-grant": "spend",
        "x-errors": ["channel_busy"],
    }
    assert [parameter["name"] for parameter in total["params"]] == ["first", "second", "third"]
    assert data["params"] == []


def test_references_resolve() -> None:
    """Every reference in the document points to a schema in it."""
    described = document()
    schemas = described["components"]["schemas"]
    found: list[str] = []

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            if "$ref" in value:
                found.append(value["$ref"].removeprefix("#/components/schemas/"))
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            for inner in value:
                walk(inner)

    walk(described)
    assert "Payment" in found
    assert set(found) <= schemas.keys()


def test_errors_are_described() -> None:
    """Where kinds have codes, each method lists the errors it may give."""
    described = document(
        error_of=lambda kind: RpcError(-32010, "the channel is busy", {"kind": kind})
    )
    pay, total, _ = described["methods"]
    assert pay["errors"] == [
        {"code": -32010, "message": "the channel is busy", "data": {"kind": "channel_busy"}}
    ]
    assert total["errors"] == []


def test_same_methods_same_document() -> None:
    """The document does not depend on chance: it can be committed and compared."""
    assert msgspec.json.encode(document()) == msgspec.json.encode(document())
    twice = [Method(name, Nothing, Nothing, summary="") for name in ("a", "b")]
    assert [one["name"] for one in openrpc("", "", twice)["methods"]] == ["a", "b"]
