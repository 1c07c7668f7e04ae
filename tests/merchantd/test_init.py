"""`init` makes everything once, whatever interrupts it, and binds one key to one escrow."""

from __future__ import annotations

import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.merchantd.support import MERCHANT_KEY_HEX, MerchantSite, until
from zkchannels.devnet.accounts import DEV_KEYS
from zkchannels.devnet.anvil import Anvil
from zkchannels.escrow.ethereum import checksum, parse_address


@pytest.fixture
def empty_site(anvil: Anvil, database_dsn: str, tmp_path: Path) -> Iterator[MerchantSite]:
    """A merchant with a configuration and nothing else."""
    made = MerchantSite(tmp_path, anvil, database_dsn)
    made.write_config()
    yield made
    made.stop_all()


def interrupted_init(site: MerchantSite) -> subprocess.Popen[bytes]:
    """A running `init`."""
    command = [sys.executable, "-m", "merchantd", "--config", str(site.config), "init"]
    return subprocess.Popen([*command, "--delay", "4000s"])


def sent(site: MerchantSite, account: bytes) -> int:
    """How many transactions an account has in blocks."""
    return int(site.anvil.call("eth_getTransactionCount", checksum(account), "latest"), 16)


def test_init_waits_for_money_and_then_completes(empty_site: MerchantSite) -> None:
    """Without coin, init says where to send it; with it, the next run ends with the same keys."""
    poor = empty_site.command("init", "--delay", "4000s")
    assert poor.returncode == 1
    address = next(word for word in poor.stderr.split() if word.startswith("0x"))
    names = ("merchant.key", "account.key", "certificate.pem", "certificate.key")
    files = {name: (empty_site.folder / name).read_bytes() for name in names}
    for name in names[:2] + names[3:]:
        mode = (empty_site.folder / name).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600
    empty_site.anvil.set_balance(parse_address(address), 10**18)
    said = empty_site.init()
    assert said["account"] == address
    assert files == {name: (empty_site.folder / name).read_bytes() for name in names}
    assert empty_site.init() == said
    assert sent(empty_site, parse_address(address)) == 1


def test_delay_must_be_long_against_the_margin(empty_site: MerchantSite) -> None:
    """An escrow that leaves no time for the margin is not made."""
    done = empty_site.command("init", "--delay", "399s")
    assert done.returncode == 1
    assert "margin" in done.stderr
    assert not (empty_site.folder / "merchant.key").exists()


async def test_init_killed_while_it_waits_is_completed(empty_site: MerchantSite) -> None:
    """Killed after the deployment was sent, init completes with that one deployment."""
    empty_site.write_account(MERCHANT_KEY_HEX)
    empty_site.anvil.set_automine(False)
    with interrupted_init(empty_site) as interrupted:

        async def waiting() -> bool:
            status = empty_site.anvil.call("txpool_status")
            return int(status["pending"], 16) == 1

        await until(waiting)
        interrupted.kill()
    empty_site.anvil.mine()
    empty_site.anvil.set_automine(True)
    empty_site.init()
    assert sent(empty_site, DEV_KEYS[0].address) == 1


def test_other_terms_are_refused(site: MerchantSite) -> None:
    """A database that serves an escrow takes no other terms."""
    other = site.command("init", "--delay", "1h")
    assert other.returncode == 1
    assert "other terms: delay" in other.stderr


def test_key_serves_one_escrow(site: MerchantSite) -> None:
    """The key of one database is refused by another, by init and by run."""
    own = site.dsn
    site.dsn = site.fresh_database()
    site.write_config()
    refused = site.command("init", "--delay", "4000s")
    assert refused.returncode == 1
    assert "one key serves exactly one escrow" in refused.stderr
    site.sql("DELETE FROM escrow")
    key = site.folder / "merchant.key"
    content = key.read_bytes()
    key.unlink()
    site.init()
    key.write_bytes(content)
    refused = site.command("run")
    assert refused.returncode == 1
    assert "one key serves exactly one escrow" in refused.stderr
    site.dsn = own
    site.write_config()
    site.start()


def test_run_needs_init(empty_site: MerchantSite) -> None:
    """Without init, run and the other commands say so."""
    for command in ("run", "list"):
        done = empty_site.command(command)
        assert done.returncode == 1
        assert "init" in done.stderr


def test_one_daemon_per_database(site: MerchantSite) -> None:
    """A second daemon on the same database refuses to run; after the first ended, it runs."""
    first = site.start()
    second = site.command("run")
    assert second.returncode == 1
    assert "another merchantd" in second.stderr
    assert first.stop() == 0
    assert site.start().stop() == 0


def test_open_key_files_are_refused(site: MerchantSite) -> None:
    """A key that others may read is not used."""
    (site.folder / "account.key").chmod(0o644)
    done = site.command("run")
    assert done.returncode == 1
    assert "chmod 600" in done.stderr


def test_wrong_configuration_is_named(empty_site: MerchantSite) -> None:
    """An unknown key is told with the nearest known one, exit status 2."""
    empty_site.write_config("[limits]\nsessions_per_adress = 3\n")
    done = empty_site.command("list")
    assert done.returncode == 2
    assert "sessions_per_address" in done.stderr


def test_escrow_of_another_chain_stops_the_daemon(site: MerchantSite) -> None:
    """A chain on which the escrow is not there ends the daemon with a reason."""
    with Anvil() as other:
        site.anvil = other
        site.write_config()
        done = site.command("run")
    assert done.returncode == 1
    assert "there is no escrow" in done.stderr


def test_unknown_channels_are_told(site: MerchantSite) -> None:
    """Commands on ids that nobody has fail, wildcards included, and an empty list is a list."""
    assert site.json("list") == {"channels": []}
    for prefix in ("0x12", "%", ""):
        done = site.command("show", prefix)
        assert done.returncode == 1
        assert "no channel has an id" in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ("--unit", "0"),
        ("--unit", str(2**128 + 1)),
        ("--decimals", "78"),
        ("--symbol", "two words"),
        ("--delay", "367d"),
        ("--token", "0x" + "11" * 20, "--symbol", "X", "--decimals", "6", "--unit", "1"),
    ],
    ids=["no unit", "large unit", "decimals", "symbol", "delay", "no contract"],
)
def test_impossible_escrows_are_not_begun(
    empty_site: MerchantSite, arguments: tuple[str, ...]
) -> None:
    """What the contract or a customer would refuse is refused before anything is bound."""
    done = empty_site.command("init", *arguments)
    assert done.returncode == 1
    assert done.stderr.startswith("merchantd: ")
    assert not (empty_site.folder / "merchant.key").exists()
