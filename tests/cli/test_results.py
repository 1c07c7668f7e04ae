"""What each command asks of the daemon and shows of its answer, in pipes."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from customerd.rpc import methods
from customerd.rpc.methods import METHODS
from tests.cli.owner import ESCROW, GUARD, Owner, channel, ether
from tests.cli.running import Customerctl

RESULTS = {method.name: method.result for method in METHODS}


def test_getinfo_shows_the_mode_first(owner: Owner, customerctl: Customerctl) -> None:
    """`getinfo` begins with version and mode and names what is there."""
    done = customerctl.run("getinfo")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("customerd 0.1.0: ready\n")
    assert "head 19,233,410" in done.stdout
    assert f"guard        {GUARD}\n" in done.stdout


def test_getinfo_says_what_is_missing(owner: Owner, customerctl: Customerctl) -> None:
    """`getinfo` in safe mode names what is missing, and every warning with its label."""
    owner.missing = ["safe_mode", "chain_unavailable", "database_unavailable"]
    owner.alarms = [methods.Alert(kind="defend", message="answer by 18:00", label="coffee")]
    shown = customerctl.run("getinfo").stdout
    assert shown.startswith("customerd 0.1.0: safe\n")
    assert "safe mode, chain unavailable, database unavailable" in shown
    assert "not attached: safe mode, nothing can be spent" in shown
    assert "not following" in shown
    assert "does not answer" in shown
    assert shown.endswith("! coffee: answer by 18:00 (defend)\n")


def test_list_is_an_aligned_table(owner: Owner, customerctl: Customerctl) -> None:
    """`list` prints one line per channel under a header, columns aligned, text unbroken."""
    owner.channels["a shop with a rather long name"] = channel("a shop with a rather long name")
    header, *rows = customerctl.run("list").stdout.splitlines()
    assert header.split() == ["label", "status", "yours", "merchant's", "merchant"]
    assert [row.index("idle") for row in rows] == [header.index("status")] * 2
    assert rows[0].startswith("coffee ")
    assert rows[0].endswith("coffee.example")


def test_list_of_nothing_says_how_to_begin(owner: Owner, customerctl: Customerctl) -> None:
    """`list` without channels says so, and how to open one."""
    owner.channels.clear()
    assert "help establish" in customerctl.run("list").stdout
    assert customerctl.json("list") == {"channels": []}


def test_recover_shows_how_each_channel_stands(owner: Owner, customerctl: Customerctl) -> None:
    """`recover` prints a row per channel, and below what is in the way."""
    lines = customerctl.run("recover", "coffee").stdout.splitlines()
    assert lines[1].split()[:3] == ["coffee", "waiting", "7"]
    assert lines[-1] == "! coffee: the merchant does not answer"
    owner.channels.clear()
    assert "No channel needs" in customerctl.run("recover").stdout


def test_backup_and_restore_say_what_comes_next(
    owner: Owner, customerctl: Customerctl, tmp_path: Path
) -> None:
    """`backup` names the whole path; `restore` tells what is stale, missing and held."""
    done = customerctl.run("backup", "wallet.zkbackup")
    assert f"1 channels in {Path.cwd() / 'wallet.zkbackup'}, 12,345 bytes" in done.stdout
    assert owner.calls[-1][1].file == str(Path.cwd() / "wallet.zkbackup")
    shown = customerctl.run("restore", str(tmp_path)).stdout
    assert "the signer knows a newer state" in shown
    assert "customerctl recover is next" in shown
    assert "not in the backup: 0xabab" in shown
    assert "2 operations wait" in shown
    assert customerctl.run("resume").stdout == "1 operations go on\n"


def test_show_gives_everything_about_a_channel(owner: Owner, customerctl: Customerctl) -> None:
    """`show` prints balances, full identifiers, and a deadline with the time left."""
    owner.channels["coffee"] = replace(
        owner.channels["coffee"], chain_status="expiring", deadline=int(time.time()) + 7205
    )
    shown = customerctl.run("show", "coffee").stdout
    assert shown.startswith("coffee: idle\n")
    assert "expiring" in shown
    assert ", in 2 h" in shown
    assert "0x" + "1f" * 32 in shown
    assert f"{ESCROW} on chain 31337" in shown


def test_rename_sends_both_labels(owner: Owner, customerctl: Customerctl) -> None:
    """`rename OLD NEW` renames."""
    assert "espresso" in customerctl.run("rename", "coffee", "espresso").stdout
    assert list(owner.channels) == ["espresso"]


def test_balance_keeps_assets_and_accounts_apart(owner: Owner, customerctl: Customerctl) -> None:
    """`balance` shows what the channels hold and, beside it, the accounts that pay gas."""
    assets, accounts = customerctl.run("balance").stdout.split("\n\n")
    assert "0.1 ETH" in assets
    assert [row.split()[0] for row in accounts.splitlines()] == ["pays", "account", "guard"]


def test_operations_and_operation_show_an_operation(owner: Owner, customerctl: Customerctl) -> None:
    """`operations` lists what was done, `operation ID` shows it with its steps and note."""
    identity = customerctl.json("pay", "coffee", "0.005 ETH")["operation"]
    row = customerctl.run("operations", "coffee", "--status", "done").stdout.splitlines()[1]
    assert row.split()[0] == identity
    assert row.endswith("0.005 ETH  done")
    assert customerctl.run("operations", "--status", "refused").stdout == "No operations.\n"
    shown = customerctl.run("operation", identity).stdout
    assert shown.startswith("pay 0.005 ETH on coffee: done\n")
    assert "enjoy your espresso" in shown
    assert [line.split()[0] for line in shown.splitlines()[-5:]] == [
        "propose",
        "prove",
        "authorize",
        "revoke",
        "complete",
    ]


def test_history_pages_backwards(owner: Owner, customerctl: Customerctl) -> None:
    """`history` shows the newest events first, `--before` and `--limit` page through them."""
    customerctl.run("pay", "coffee", "0.005 ETH")
    events = customerctl.json("history", "coffee", "--before", "3", "--limit", "1")["events"]
    assert [event["seq"] for event in events] == [2]
    rows = customerctl.run("history", "coffee", "--limit", "2").stdout.splitlines()
    assert [row.split()[0] for row in rows] == ["number", "7", "6"]
    assert "operation.done" in rows[1]


def test_estimate_takes_the_operation_and_the_channel(
    owner: Owner, customerctl: Customerctl
) -> None:
    """`estimate close coffee --force` sends all three and shows fee, duration and notes."""
    shown = customerctl.run("estimate", "close", "coffee", "--force").stdout
    assert owner.calls[-1][1] == methods.EstimateParams("close", label="coffee", force=True)
    assert "0.0031 ETH" in shown
    assert "about 2 d" in shown
    assert "after the delay" in shown


def test_metrics_are_printed_as_they_are(owner: Owner, customerctl: Customerctl) -> None:
    """`metrics` prints OpenMetrics text without any decoration."""
    assert customerctl.run("metrics").stdout.endswith("customerd_channels 1\n# EOF\n")


def test_reload_names_what_holds_and_what_waits(owner: Owner, customerctl: Customerctl) -> None:
    """`reload` shows each setting that differs, and whether it needs a restart."""
    done = customerctl.run("reload")
    assert done.stdout == (
        "✓ log_level is changed\n! database.dsn changes when customerd is restarted\n"
    )


def test_stop_says_who_stops(owner: Owner, customerctl: Customerctl) -> None:
    """`stop` ends the daemon and names its process."""
    done = customerctl.run("stop")
    assert (done.returncode, done.stdout) == (0, "✓ customerd (pid 4242) is stopping\n")
    assert customerctl.run("getinfo").returncode == 3


READING = (
    ("getinfo",),
    ("balance",),
    ("list",),
    ("show", "coffee"),
    ("history",),
    ("estimate", "pay"),
    ("operations",),
    ("signer-status",),
    ("metrics",),
)


@pytest.mark.parametrize("arguments", READING, ids=lambda arguments: arguments[0])
def test_json_is_the_result_object(
    owner: Owner, customerctl: Customerctl, arguments: tuple[str, ...]
) -> None:
    """`--json`, also before the command, prints the result as its type has it."""
    result = customerctl.json(*arguments)
    msgspec.convert(result, RESULTS[arguments[0]])
    before = customerctl.run("--json", *arguments)
    assert json.loads(before.stdout).keys() == result.keys()


def test_rpc_calls_any_method(owner: Owner, customerctl: Customerctl) -> None:
    """`rpc` passes an object, a list, standard input or nothing as parameters and prints JSON."""

    def called(*arguments: str, stdin: str = "") -> Any:
        done = customerctl.run("rpc", *arguments, stdin=stdin)
        assert done.returncode == 0, done
        return json.loads(done.stdout)

    assert called("show", '{"label": "coffee"}')["label"] == "coffee"
    assert called("show", '["coffee"]')["label"] == "coffee"
    assert called("show", "-", stdin='{"label": "coffee"}')["label"] == "coffee"
    assert called("rpc.discover")["openrpc"].startswith("1.")
    assert called("help", '{"method": "pay"}')["methods"][0]["name"] == "pay"


def test_rpc_reports_errors_as_json(owner: Owner, customerctl: Customerctl) -> None:
    """`rpc` prints the error object of the daemon, and refuses parameters that are no JSON."""
    done = customerctl.run("rpc", "show", '{"label": "tea"}')
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["data"]["kind"] == "not_found"
    assert customerctl.run("rpc", "nonsense").returncode == 1
    for wrong in ("{", "7", '"text"'):
        done = customerctl.run("rpc", "show", wrong)
        assert done.returncode == 2
        assert json.loads(done.stdout)["error"]["data"]["kind"] == "usage"


def test_cancel_names_what_was_cancelled(owner: Owner, customerctl: Customerctl) -> None:
    """`cancel` cancels an operation; one that is done cannot be cancelled any more."""
    owner.hold_at = ("propose",)
    identity = customerctl.json("pay", "coffee", "0.01 ETH", "--no-wait")["operation"]
    done = customerctl.run("cancel", identity)
    assert done.stdout == "✓ cancelled: pay 0.01 ETH on coffee\n"
    owner.hold_at = ()
    identity = customerctl.json("pay", "coffee", "0.01 ETH")["operation"]
    done = customerctl.run("cancel", identity)
    assert (done.returncode, done.stdout) == (1, "")
    assert "cannot be cancelled" in done.stderr


def test_foreign_text_cannot_steer_a_terminal(owner: Owner, customerctl: Customerctl) -> None:
    """Control characters and forged lines in a merchant's note stay visible and indented."""
    owner.note = "thanks\x1b[2J\x9b31m\u202e[bold]\r\n✓ paid 9 ETH on coffee"
    shown = customerctl.run("pay", "coffee", "0.005 ETH").stdout
    assert not set(shown) & {"\x1b", "\x9b", "\u202e", "\r"}
    assert shown.splitlines()[1:] == [
        "  merchant: thanks\ufffd[2J\ufffd31m\ufffd[bold]",
        "            ✓ paid 9 ETH on coffee",
    ]
    as_json = customerctl.run("operations", "--json").stdout
    assert as_json.isascii()
    assert json.loads(as_json)["operations"][0]["service_note"] == owner.note


def test_the_largest_amounts_are_exact(owner: Owner, customerctl: Customerctl) -> None:
    """Balances up to 2^63-1 units are shown and passed on to the last digit."""
    owner.channels["vault"] = channel("vault", customer=2**63 - 1)
    assert "9223372036.854775807 ETH" in customerctl.run("list").stdout
    shown = customerctl.json("show", "vault")
    assert shown["customer_balance"] == msgspec.to_builtins(ether(2**63 - 1))
