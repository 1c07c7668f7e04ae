"""A whole life at debug level: each payment's story is complete, and nothing secret is in it."""

from __future__ import annotations

import base64
import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import psycopg

from customerd.config import Settings
from tests.flow.world import World
from tests.journal.journald import Entry, Journald
from tests.journal.network import RecordedNetwork
from tests.thief.support import found_in, newest_state, signer_secrets
from tests.tokens.support import Holder, create, refused_token
from zkchannels.service.configuration import load
from zkchannels.wire.pairing import PairingLine

_PRIVATE = "PRIVATE KEY"


def told(journald: Journald, **fields: str) -> list[Entry]:
    """Return the entries with these fields, by which `journalctl` finds them."""
    return journald.read(*(f"{name.upper()}={value}" for name, value in fields.items()))


def events(entries: list[Entry]) -> list[str]:
    """Return the names of the events, without those of the debug level."""
    return [entry["EVENT"] for entry in entries if int(entry["PRIORITY"]) < 7]


def test_one_operation_one_story(world: World, journald: Journald) -> None:
    """`OPERATION=` finds everything on an operation's way: begin, steps, transactions, end."""
    label = world.establish("1 ETH")
    paid = world.pay(label, "0.1 ETH")
    refused = (
        world.refused(
            "pay", label=label, amount="0.5 ETH", note="\ud83d".encode("utf-8", "replace").decode()
        )
        if False
        else None
    )
    assert refused is None
    story = told(journald, operation=paid["operation"])
    assert events(story) == ["operation_queued", "operation_done"]
    assert {entry["CHANNEL"] for entry in story} == {label}
    steps = [entry["STEP"] for entry in story if entry["EVENT"] == "step_begins"]
    assert steps == ["propose", "prove", "authorize", "revoke", "complete"]
    assert {entry["METHOD"] for entry in story} == {"pay"}
    assert all("MESSAGE_ID" in entry for entry in story if int(entry["PRIORITY"]) < 7)
    closing = world.rpc("close", label=label, wait=False)
    world.settle(closing["operation"])

    def whole(story: list[Entry]) -> bool:
        world.network.chain.mine()
        return "transaction_final" in events(story)

    names = events(journald.until(whole, f"OPERATION={closing['operation']}"))
    assert names[0] == "operation_queued"
    assert {"operation_done", "transaction_pending", "transaction_included"} < set(names)
    sent = [entry for entry in told(journald, channel=label) if "TX" in entry]
    assert {entry["CHANNEL"] for entry in sent} == {label}
    assert all(entry["TX"].startswith("0x") and len(entry["TX"]) == 66 for entry in sent)
    assert any("BLOCK" in entry for entry in sent)


def test_a_story_goes_on_over_a_crash(world: World, journald: Journald) -> None:
    """An operation that a killed daemon left has one story, written by both processes."""
    label, merchant = world.establish("1 ETH"), world.network.merchants["coffee"].service
    os.kill(merchant.pid, signal.SIGSTOP)
    try:
        operation = world.rpc("pay", label=label, amount="0.1 ETH", wait=False)["operation"]
        journald.until(lambda entries: entries, f"OPERATION={operation}", "EVENT=merchant_called")
        world.network.daemon.kill()
    finally:
        os.kill(merchant.pid, signal.SIGCONT)
    world.everything_runs()
    assert world.settle(operation)["status"] == "done"
    story = told(journald, operation=operation)
    assert len({entry["_PID"] for entry in story}) == 2
    names = [name for name in events(story) if name != "operation_rests"]
    assert names == ["operation_queued", "operation_taken_up", "operation_done"]


def test_amounts_and_merchants_are_told_at_debug_level_only(
    world: World, journald: Journald
) -> None:
    """Who reads the log at info level learns that was paid, not how much, to whom, what for."""
    label = world.establish("0.7654321 ETH", note="for the cake")
    world.pay(label, "0.0123456 ETH", note="one espresso")
    port = world.network.merchants["coffee"].address.rpartition("/")[0].rpartition(":")[2]
    for entry in told(journald, channel=label):
        if int(entry["PRIORITY"]) == 7:
            continue
        for private in ("765432100", "12345600", "0.0123456", "espresso", "cake", f":{port}"):
            assert private not in str(entry), entry
    assert any(entry.get("AMOUNT") == "12345600" for entry in told(journald, channel=label))


def test_no_secret_is_in_the_journal(
    world: World, recorded: RecordedNetwork, journald: Journald
) -> None:
    """Establish, pay, refund, safe mode, pairing, tokens, an outage, close: no secret is written.

    All programs log at debug level; searched are all fields of all entries and what was written
    elsewhere, for every form of every secret that the test can know.
    """
    wanted: dict[str, bytes | int] = {}

    def learn(moment: str) -> None:
        found = signer_secrets(world, label)
        state = newest_state(world, label)
        found |= {"authorization": state.signature, "permit": state.permit, "token": state.token}
        wanted.update({f"{moment}: {name}": value for name, value in found.items()})

    label = world.establish("1 ETH")
    learn("established")
    world.pay(label, "0.1 ETH")
    learn("paid")
    recorded.signer.kill()
    recorded.wait_mode("safe")
    assert world.refused("pay", label=label, amount="0.1 ETH")["kind"] == "safe_mode"
    recorded.signer.start()
    recorded.wait_mode("ready")
    world.rpc("refund", label=label, amount="0.05 ETH")
    learn("refunded")
    wanted |= _tokens(world)
    wanted |= _pairing(recorded)
    _break_the_database(recorded)
    journald.until(lambda entries: entries, "EVENT=database_back")
    world.everything_runs()
    world.settle(world.rpc("close", label=label, wait=False)["operation"])
    wanted |= _files(recorded)
    wanted["password of the database"] = recorded.password.encode()

    written = journald.export()
    for path in recorded.directory.rglob("*.log"):
        written += path.read_bytes()
    assert len(wanted) > 50
    assert any("its middle" in name for name in wanted)
    assert found_in(written, wanted) == set()
    public = {"channel": bytes.fromhex(world.show(label)["channel"][2:])}
    assert found_in(written, public) == {"channel"}  # what is there is found
    programs = {entry.get("SYSLOG_IDENTIFIER") for entry in journald.read("PRIORITY=7")}
    assert programs >= {"customerd"}


def _tokens(world: World) -> dict[str, bytes | int]:
    """Make, use, misuse and revoke tokens; return what is secret about them."""
    token = create(world, "getinfo", "balance")["token"]
    with Holder(world, token) as holder:
        holder.call("getinfo")
        assert holder.refused("metrics") == "forbidden"
    wrong = token[:-4] + ("AAAA" if token[-4:] != "AAAA" else "BBBB")
    assert refused_token(world, wrong) == "forbidden"
    world.rpc("token-revoke", id=world.rpc("token-list")["tokens"][-1]["id"])
    return {"token": token.encode(), "token's end": token[-24:].encode(), "wrong": wrong.encode()}


def _pairing(recorded: RecordedNetwork) -> dict[str, bytes | int]:
    """Offer a pairing, have one refused and one made; return the one-time secrets."""
    found: dict[str, bytes | int] = {}
    lines = [str(recorded.rpc("signer-pair")["line"]) for _ in range(2)]  # the first is withdrawn
    for number, (text, code) in enumerate(zip(lines, (False, True), strict=True)):
        found[f"pairing line {number}"] = text.encode()
        found[f"pairing secret {number}"] = PairingLine.read(text).secret
        found[f"pairing secret {number} as shown"] = text.split(",")[-2].encode()
        signer = [sys.executable, "-m", "customersigner"]
        state = ["--state-directory", str(recorded.signer_directory)]
        done = subprocess.run(
            [*signer, *state, "pair", "--passphrase-file", str(recorded.passphrase)],
            input=text + "\n",
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert (done.returncode == 0) == code, done
    return found


def _break_the_database(recorded: RecordedNetwork) -> None:
    """End the daemon's and the merchant's connections, so that they tell of it."""
    with psycopg.connect(load(Settings, recorded.config).database.dsn) as connection:
        connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where pid <> pg_backend_pid() and application_name in ('customerd', 'merchantd')"
        )


def _files(recorded: RecordedNetwork) -> dict[str, bytes | int]:
    """Everything secret that is in files: keys, passphrases, private halves of certificates."""
    found: dict[str, bytes | int] = {"passphrase": recorded.passphrase.read_bytes().strip()}
    for path in sorted(recorded.directory.rglob("*")):
        if path.suffix == ".key":
            text = path.read_bytes().strip()
            found[f"{path.name} as text"] = text
            with contextlib.suppress(ValueError):
                found[path.name] = bytes.fromhex(text.decode())
        if path.suffix in (".key", ".pem") and _PRIVATE in path.read_text():
            found |= _private_lines(path)
    return found


def _private_lines(path: Path) -> dict[str, bytes | int]:
    body = path.read_text().partition(f"{_PRIVATE}-----")[2].partition("-----END")[0]
    key = base64.b64decode(body)
    return {f"{path.name}: key": key, f"{path.name}: its middle": key[36:68]}
