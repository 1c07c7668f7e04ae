"""What a token allows at the monitor socket, caveat by caveat, and what it does not."""

from __future__ import annotations

import hmac
import socket
import stat
import time
from typing import Any

import msgspec
import pytest

from customerd.rpc.methods import METHODS
from customerd.rpc.monitor import MOST_SUBSCRIPTIONS
from tests.flow.world import World
from tests.tokens.support import Holder, create, refused_token, restricted
from zkchannels import caveats
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.macaroon import Macaroon


def example(method: Any) -> dict[str, Any]:
    """Return the parameters of a method's example."""
    given: dict[str, Any] = msgspec.to_builtins(method.example)
    return given


def test_nothing_is_answered_without_a_token(world: World) -> None:
    """Every method is refused as forbidden on a connection that presented none."""
    with Holder(world) as holder:
        for method in METHODS:
            assert holder.refused(method.name, **example(method)) == "forbidden", method.name


def test_a_token_allows_its_methods_alone(world: World) -> None:
    """Methods that are named are answered, all others refused, whatever they need."""
    made = create(world, "getinfo", "list", "help")
    with Holder(world, made["token"]) as holder:
        assert holder.granted["methods"] == ["getinfo", "help", "list"]
        assert holder.call("getinfo")["mode"] == "ready"
        assert "channels" in holder.call("list")
        for method in METHODS:
            if method.name not in holder.granted["methods"]:
                assert holder.refused(method.name, **example(method)) == "forbidden", method.name


def test_the_monitor_socket_is_for_its_group(world: World) -> None:
    """Mode 0660, and `authenticate` is there only."""
    mode = world.network.monitor_socket.stat().st_mode
    assert stat.S_IMODE(mode) == 0o660
    with (
        BlockingClient(str(world.network.socket)) as owner,
        pytest.raises(Exception, match="32601"),
    ):
        owner.call("authenticate", {"token": "x"})


def test_a_holder_restricts_and_never_widens(world: World) -> None:
    """Appended caveats take away; appended methods, channels and times give nothing."""
    made = create(world, "getinfo", "list", expires="1h")
    less = restricted(made["token"], caveats.methods(["getinfo", "pay"]))
    with Holder(world, less) as holder:
        assert holder.granted["methods"] == ["getinfo"]
        assert holder.refused("list") == "forbidden"
    longer = restricted(made["token"], caveats.before(int(time.time()) + 10**6))
    with Holder(world, longer) as holder:
        assert holder.granted["expires"] < time.time() + 3601
    paying = restricted(
        made["token"], caveats.methods(["pay"]), caveats.spend(10**18, bytes(20), 18, "ETH")
    )
    with Holder(world, paying) as holder:
        assert holder.granted["methods"] == []
        assert holder.refused("pay", label="x", amount="1 ETH") == "forbidden"
    over = restricted(made["token"], caveats.before(int(time.time()) - 1))
    assert refused_token(world, over) == "forbidden"


def test_forged_tokens_are_refused(world: World) -> None:
    """Tampered, shortened, lengthened, stripped of a caveat, of another key: all forbidden."""
    made = create(world, "getinfo", expires="1h")
    token, read = made["token"], Macaroon.decode(made["token"])
    other = Macaroon.mint(bytes(32), read.identifier, read.caveats)
    stripped = Macaroon(read.identifier, read.caveats[:1], read.signature)
    unknown = restricted(token, "colour blue")
    place = len(token) // 2
    tampered = token[:place] + ("A" if token[place] != "A" else "B") + token[place + 1 :]
    forged = [other.encode(), stripped.encode(), unknown, tampered, token[:-1], token + "A"]
    for text in [*forged, "", "\u00e9", " " + token, token + "\n"]:
        assert refused_token(world, text) == "forbidden", text
    with Holder(world, token) as holder:
        assert holder.call("getinfo")


def test_a_thief_of_the_key_makes_nothing_wider(world: World) -> None:
    """A token signed with the key file, but not as it was made, is refused."""
    made = create(world, "getinfo", expires="1h")
    key = bytes.fromhex((world.network.directory / "tokens.key").read_text())
    identity = bytes.fromhex(made["id"])
    root = hmac.digest(key, b"zkchannels/token/1" + identity, "sha256")
    assert Macaroon.mint(root, identity, made["caveats"]).encode() == made["token"]
    for chosen in ([], [caveats.methods(["getinfo", "list"])], made["caveats"][1:]):
        assert refused_token(world, Macaroon.mint(root, identity, chosen).encode()) == "forbidden"


def test_a_connection_presents_one_token(world: World) -> None:
    """A second token on a connection changes nothing; a refused one ends it."""
    first, second = create(world, "getinfo"), create(world, "list")
    with Holder(world, first["token"]) as holder:
        assert holder.refused("authenticate", token=second["token"]) == "forbidden"
        assert holder.call("getinfo")
        assert holder.refused("list") == "forbidden"
    with Holder(world) as holder:
        assert holder.refused("authenticate", token="nonsense") == "forbidden"
        assert holder.ended()


def test_revoking_is_at_once(world: World) -> None:
    """Open connections, those that wait and those that subscribed end with their token."""
    made = create(world, "getinfo", "subscribe", note="to be revoked")
    kept = create(world, "getinfo")
    derived = restricted(made["token"], caveats.methods(["getinfo"]))
    with (
        Holder(world, made["token"]) as subscribed,
        Holder(world, derived) as silent,
        Holder(world, kept["token"]) as other,
    ):
        subscribed.call("subscribe")
        assert silent.call("getinfo")
        assert world.rpc("token-revoke", id=made["id"]) == {"id": made["id"]}
        assert subscribed.ended()
        assert silent.lost("getinfo")
        assert other.call("getinfo")
    assert refused_token(world, made["token"]) == "forbidden"
    assert refused_token(world, derived) == "forbidden"
    rows = {token["id"]: token for token in world.rpc("token-list")["tokens"]}
    assert (rows[made["id"]]["status"], rows[made["id"]]["note"]) == ("revoked", "to be revoked")
    assert rows[kept["id"]]["status"] == "valid"
    assert world.refused("token-revoke", id="0" * 32)["kind"] == "not_found"


def test_an_expired_token_loses_its_connections(world: World) -> None:
    """The end of its time ends a subscription that nobody talks on, and lets nobody in."""
    made = create(world, "getinfo", "subscribe", expires="2s")
    with Holder(world, made["token"]) as holder:
        holder.call("subscribe")
        assert holder.ended()
    assert time.time() >= holder.granted["expires"]
    assert refused_token(world, made["token"]) == "forbidden"
    rows = {token["id"]: token["status"] for token in world.rpc("token-list")["tokens"]}
    assert rows[made["id"]] == "expired"


def test_the_rate_is_the_token_s_on_all_connections(world: World) -> None:
    """Two connections of one token share its calls, refused ones count; another has its own."""
    made, free = create(world, "getinfo", rate="5/h"), create(world, "getinfo")
    with Holder(world, made["token"]) as one, Holder(world, made["token"]) as two:
        for _ in range(2):
            assert one.call("getinfo")
            assert two.call("getinfo")
        assert one.refused("list") == "forbidden"
        assert one.refused("getinfo") == "rate_limited"
        assert two.refused("getinfo") == "rate_limited"
        with Holder(world, restricted(made["token"], caveats.rate("100/s"))) as derived:
            assert derived.refused("getinfo") == "rate_limited"
    with Holder(world, free["token"]) as holder:
        for _ in range(10):
            assert holder.call("getinfo")


@pytest.mark.parametrize(
    ("given", "kind"),
    [
        ({"methods": ["nonsense"]}, "not_found"),
        ({"methods": ["stop"]}, "invalid_restriction"),
        ({"methods": ["token-create"]}, "invalid_restriction"),
        ({"methods": ["pay"]}, "invalid_restriction"),
        ({"methods": ["list"], "spend": "0.1 ETH"}, "invalid_restriction"),
        ({"methods": ["pay"], "spend": "0.1 GOLD"}, "invalid_restriction"),
        ({"methods": ["pay"], "spend": "-0.1 ETH"}, "invalid_restriction"),
        ({"methods": ["pay"], "spend": ""}, "invalid_restriction"),
        ({"methods": ["list"], "expires": "tomorrow"}, "invalid_restriction"),
        ({"methods": ["list"], "rate": "often"}, "invalid_restriction"),
        ({"methods": ["list"], "channels": ["nowhere"]}, "not_found"),
    ],
)
def test_tokens_that_are_not_made(world: World, given: dict[str, Any], kind: str) -> None:
    """What a token cannot allow, or what cannot be read, makes none."""
    before = len(world.rpc("token-list")["tokens"])
    assert world.refused("token-create", **given)["kind"] == kind
    assert len(world.rpc("token-list")["tokens"]) == before


def test_subscriptions_of_a_connection_are_bounded(world: World) -> None:
    """Each costs the daemon a task; ever more of them are refused."""
    made = create(world, "subscribe")
    with Holder(world, made["token"]) as holder:
        for _ in range(MOST_SUBSCRIPTIONS):
            holder.call("subscribe")
        assert holder.refused("subscribe") == "rate_limited"


def test_garbage_at_the_monitor_socket_hurts_nobody(world: World) -> None:
    """Broken lines, floods of calls and notifications end their connection and nothing else."""
    for sent in (b"\xff\xfe\n", b"{}\n", b"[" * 5000 + b"\n", b"x" * 200_000, b'{"jsonrpc":"2.0"'):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as link:
            link.settimeout(30)
            link.connect(str(world.network.monitor_socket))
            try:
                link.sendall(sent)
            except BrokenPipeError:
                continue
            link.shutdown(socket.SHUT_WR)
            while link.recv(1 << 16):
                continue
    info = world.rpc("getinfo")
    assert (info["mode"], info["missing"]) == ("ready", [])
