"""What a stolen token is worth, and the key that tokens come from."""

from __future__ import annotations

import secrets

from tests.flow.world import World
from tests.thief.support import dump, found_in, signer_files
from tests.tokens.support import Holder, create, refused_token, restricted
from zkchannels.macaroon import Macaroon

READING = ("getinfo", "balance", "list")


def test_a_stolen_monitor_token_reads_what_it_names_until_it_is_revoked(world: World) -> None:
    """It spends nothing, makes no wider token, and is worth nothing once its id is revoked."""
    label = world.establish("1 ETH")
    made = create(world, *READING)
    others = {"pay": {"label": label, "amount": 1}, "show": {"label": label}, "stop": {}}
    others["token-create"] = {"methods": ["pay"]}
    others["close"] = {"label": label}
    with Holder(world, made["token"]) as thief:
        assert label in {channel["label"] for channel in thief.call("list")["channels"]}
        for method, params in others.items():
            assert thief.refused(method, **params) == "forbidden", method
    wider = restricted(made["token"], "methods getinfo,pay")
    with Holder(world, wider) as thief:
        assert thief.refused("pay", label=label, amount="0.1 ETH") == "forbidden"
    identifier = Macaroon.decode(made["token"]).identifier
    forged = Macaroon(identifier, ("methods pay",), secrets.token_bytes(32))
    assert refused_token(world, forged.encode()) == "forbidden"
    before = world.balances(label)
    world.rpc("token-revoke", id=made["id"])
    assert refused_token(world, made["token"]) == "forbidden"
    assert world.balances(label) == before


def test_no_token_can_be_made_from_what_is_stored(world: World) -> None:
    """Neither the database nor the signer's files hold a token or the key that they come from."""
    made = create(world, *READING)
    key = (world.network.directory / "tokens.key").read_text().strip()
    wanted: dict[str, bytes | int] = {
        "token": made["token"].encode(),
        "signature": Macaroon.decode(made["token"]).signature,
        "key": bytes.fromhex(key),
    }
    assert found_in(dump(world), wanted) == set()
    for data in signer_files(world).values():
        assert found_in(data, wanted) == set()
    world.rpc("token-revoke", id=made["id"])
