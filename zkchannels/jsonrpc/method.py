"""A method is defined once: dispatch, validation and the OpenRPC document all come from it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

import msgspec
from msgspec import Raw, Struct, UnsetType

from zkchannels.jsonrpc.errors import RpcError

P = TypeVar("P", bound=Struct)
R = TypeVar("R")


@dataclass(frozen=True, eq=False)
class Method(Generic[P, R]):
    """Name, types and description of one method.

    `params` is a Struct; by position, parameters come in the order of its fields. `errors` are the
    kinds it may give; `needs` is what must be there for it to be answered. `grant` says who but the
    owner may be given it: "read" or "spend" for holders of such tokens, "" nobody.
    """

    name: str
    params: type[P]
    result: type[R]
    summary: str
    errors: tuple[str, ...] = ()
    needs: str = ""
    example: P | None = None
    grant: str = ""

    def decode_params(self, params: Raw | UnsetType) -> P:
        """Read `params` given by name or by position; raises as msgspec does, or RecursionError."""
        if not isinstance(params, Raw):
            return self._params_decoder.decode(b"{}")
        if memoryview(params)[0] == ord("["):
            return self._params_decoder.decode(self._by_name(params))
        return self._params_decoder.decode(params)

    def decode_result(self, result: bytes | Raw) -> R:
        """Read a result; raises as msgspec does, or RecursionError."""
        return self._result_decoder.decode(result)

    def _by_name(self, params: Raw) -> bytes:
        names = self.params.__struct_encode_fields__
        values = _list_of_raw.decode(params)
        if len(values) > len(names):
            raise msgspec.ValidationError(
                f"Expected at most {len(names)} parameters, got {len(values)}"
            )
        return msgspec.json.encode(dict(zip(names, values, strict=False)))

    @cached_property
    def _params_decoder(self) -> msgspec.json.Decoder[P]:
        return msgspec.json.Decoder(self.params)

    @cached_property
    def _result_decoder(self) -> msgspec.json.Decoder[R]:
        return msgspec.json.Decoder(self.result)


_list_of_raw = msgspec.json.Decoder(list[Raw])


def openrpc(
    title: str,
    version: str,
    methods: Iterable[Method[Any, Any]],
    *,
    error_of: Callable[[str], RpcError] | None = None,
) -> dict[str, Any]:
    """Return the OpenRPC 1.3.2 document of these methods, as plain JSON values.

    `error_of` gives the error object that stands for a kind; without it only the kinds are named,
    under `x-errors`.
    """
    methods = list(methods)
    types = list(
        dict.fromkeys(kind for method in methods for kind in (method.params, method.result))
    )
    schemas, components = msgspec.json.schema_components(
        types, ref_template="#/components/schemas/{name}"
    )
    schema_of = dict(zip(types, schemas, strict=True))
    return {
        "openrpc": "1.3.2",
        "info": {"title": title, "version": version},
        "methods": [_describe(method, schema_of, components, error_of) for method in methods],
        "components": {"schemas": components},
    }


def _describe(
    method: Method[Any, Any],
    schema_of: Mapping[Any, dict[str, Any]],
    components: Mapping[str, Any],
    error_of: Callable[[str], RpcError] | None,
) -> dict[str, Any]:
    reference = schema_of[method.params]["$ref"]
    params = components[reference.rpartition("/")[2]]
    described: dict[str, Any] = {
        "name": method.name,
        "summary": method.summary,
        "paramStructure": "either",
        "params": [
            _parameter(name, schema, required=name in params.get("required", ()))
            for name, schema in params.get("properties", {}).items()
        ],
        "result": {"name": "result", "schema": schema_of[method.result]},
        "x-needs": method.needs,
        "x-grant": method.grant,
        "x-errors": list(method.errors),
    }
    if error_of is not None:
        described["errors"] = [_error(error_of(kind)) for kind in method.errors]
    if method.example is not None:
        values = msgspec.to_builtins(method.example)
        described["examples"] = [
            {
                "name": method.name,
                "params": [{"name": name, "value": value} for name, value in values.items()],
            }
        ]
    return described


def _parameter(name: str, schema: dict[str, Any], *, required: bool) -> dict[str, Any]:
    parameter: dict[str, Any] = {"name": name, "required": required, "schema": schema}
    if "description" in schema:
        parameter["description"] = schema["description"]
    return parameter


def _error(error: RpcError) -> dict[str, Any]:
    described: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.data is not None:
        described["data"] = error.data
    return described
