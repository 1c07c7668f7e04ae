"""A token for one channel learns nothing about the others, whatever it asks."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from customerd.rpc.methods import METHODS
from tests.flow.world import World
from tests.recovery.support import Snapshot, dsn_of
from tests.tokens.support import Holder, create, kind_of, restricted
from zkchannels import caveats
from zkchannels.jsonrpc.errors import RpcError
from zkchannels.macaroon import Macaroon

OPEN = [method for method in METHODS if method.grant]
NOBODY = {"label": "never-was", "operation": "0" * 32}
"""What a field that names something names when there is no such thing."""


def outcome(holder: Holder, method: str, params: dict[str, Any]) -> str:
    """Return everything that the answer to a call says, good or bad."""
    try:
        return json.dumps(holder.call(method, **params))
    except RpcError as error:
        return json.dumps([error.code, error.message, error.data])


def variants(method: Any, names: dict[str, str]) -> list[dict[str, Any]]:
    """Return the method's example without its names, and then with each of these."""
    given = msgspec.to_builtins(method.example)
    fields = set(method.params.__struct_fields__)
    required = set(msgspec.json.schema(method.params)["$defs"][method.params.__name__]["required"])
    plain = {key: value for key, value in given.items() if key not in names or key in required}
    if method.name == "estimate":
        return [plain, {**plain, "label": names["label"]}]
    found = [plain | {key: names[key] for key in required & set(names)}]
    return found + [{**plain, key: names[key]} for key in sorted(fields & set(names) - required)]


def test_no_method_tells_of_another_channel(world: World) -> None:
    """Every method of the registry, with and without the other's names, for every such name."""
    own, other = world.establish("1 ETH"), world.establish("10 TEST", merchant="bakery")
    paid = world.pay(other, "1 TEST", note="a secret matter")
    world.pay(own, "0.1 ETH")
    hidden = world.show(other)
    secrets = [
        other,
        hidden["channel"],
        hidden["channel"][2:],
        hidden["escrow"],
        hidden["escrow"][2:].lower(),
        hidden["merchant"],
        paid["operation"],
        "a secret matter",
        "TEST",
    ]
    reading = [method.name for method in OPEN]
    made = create(world, *reading, channels=[own], spend="0.1 ETH")
    everything = create(world, *reading, spend="0.1 ETH")
    child = restricted(
        everything["token"], caveats.channels([bytes.fromhex(world.show(own)["channel"][2:])])
    )
    for token in (made["token"], child):
        with Holder(world, token) as holder:
            for method in OPEN:
                named = variants(method, {"label": other, "operation": paid["operation"]})
                nobody = variants(method, NOBODY)
                for asked, blank in zip(named, nobody, strict=True):
                    if method.name == "rpc.discover":
                        continue
                    said = outcome(holder, method.name, asked)
                    assert_same(said, outcome(holder, method.name, blank), other, paid["operation"])
                    unasked = said.replace(other, "") if asked.get("label") == other else said
                    for secret in secrets:
                        assert secret not in unasked, (method.name, asked)
            info = holder.call("getinfo")
            assert (info["channels"], info["operations"]) == (1, 0)
            assert (info["guard_balance"], info["signer"]["account"]) == (None, None)
            assert [row["label"] for row in holder.call("list")["channels"]] == [own]
            assert len(holder.call("operations")["operations"]) == 2
            assert {row["label"] for row in holder.call("history")["events"]} == {own}
            assert [row["symbol"] for row in holder.call("balance")["assets"]] == ["ETH"]
            assert holder.refused("metrics") == "forbidden"


def assert_same(one: str, two: str, label: str, operation: str) -> None:
    """Another's name and nobody's are answered alike, but for the name itself and the time."""
    assert one.startswith("{") == two.startswith("{")
    if one.startswith("["):
        told = one.replace(label, NOBODY["label"]).replace(operation, NOBODY["operation"])
        assert told == two


def test_events_of_other_channels_are_not_sent(world: World) -> None:
    """A subscription gets what happens on its channel, also what happened before, and no more."""
    own, other = world.establish("1 ETH"), world.establish("1 ETH")
    made = create(world, "subscribe", channels=[own])
    with Holder(world, made["token"]) as holder:
        holder.call("subscribe", after=0)
        world.pay(other, "0.1 ETH")
        last = world.pay(own, "0.1 ETH")["operation"]
        for _, event in holder.client.notifications():
            assert event["label"] == own, event
            if event["operation"] == last and event["kind"] == "done":
                break


def test_a_renamed_channel_stays_the_same(world: World) -> None:
    """Another channel that takes the label of a token's channel is not the token's."""
    own, other = world.establish("1 ETH"), world.establish("1 ETH")
    made = create(world, "show", "list", channels=[own])
    world.rpc("rename", label=own, new_label=f"{own}-old")
    world.rpc("rename", label=other, new_label=own)
    with Holder(world, made["token"]) as holder:
        assert holder.refused("show", label=own) == "not_found"
        assert [row["label"] for row in holder.call("list")["channels"]] == [f"{own}-old"]


def test_channels_together_with_others_are_none(world: World) -> None:
    """A holder who adds a channel that the token does not have is left with nothing."""
    own, other = world.establish("1 ETH"), world.establish("1 ETH")
    made = create(world, "list", "show", "getinfo", channels=[own])
    wrong = caveats.channels([bytes.fromhex(world.show(other)["channel"][2:])])
    with Holder(world, restricted(made["token"], wrong)) as holder:
        assert holder.call("list") == {"channels": []}
        assert holder.call("getinfo")["channels"] == 0
        for label in (own, other):
            with pytest.raises(RpcError) as refusal:
                holder.call("show", label=label)
            assert kind_of(refusal.value) == "not_found"


def test_no_secret_is_written_anywhere(world: World) -> None:
    """Neither log nor database nor list hold a token, its last link, or the key they come from."""
    made = create(world, "getinfo", note="to be looked for")
    with Holder(world, made["token"]) as holder:
        assert holder.call("getinfo")
    with Holder(world) as holder:
        assert holder.refused("authenticate", token=made["token"][:-2] + "AA") == "forbidden"
    key_file = world.network.directory / "tokens.key"
    assert key_file.stat().st_mode & 0o777 == 0o600
    signature = Macaroon.decode(made["token"]).signature.hex()
    written = [path.read_text(errors="replace") for path in world.network.directory.rglob("*.log")]
    written += [rows.decode() for rows in Snapshot(dsn_of(world)).tables.values()]
    written.append(json.dumps(world.rpc("token-list")))
    written.append(json.dumps(world.rpc("history", limit=1000)))
    assert any("to be looked for" in text for text in written)
    for text in written:
        for secret in (made["token"], made["token"][-40:], signature, key_file.read_text().strip()):
            assert secret not in text
