"""Pairing over real TLS between real processes: once, for a while, with nobody in between."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from customersigner.errors import PairingFailed
from customersigner.pairing import pair
from tests.link.between import Proxy
from tests.link.conftest import SignerMaker
from tests.link.parts import OTHER_WORDS, WORDS, Daemon, Signer, wallet
from zkchannels.escrow.ethereum import checksum
from zkchannels.service.certificate import ensure_pair
from zkchannels.service.tls import fingerprint_of
from zkchannels.wire.pairing import PairingLine


def changed(text: str, **parts: object) -> str:
    """A pairing line with other parts."""
    line = PairingLine.read(text)
    known = {name: getattr(line, name) for name in ("address", "fingerprint", "secret", "expires")}
    return PairingLine(**{**known, **parts}).text()


def test_a_signer_is_paired_in_one_step_and_attaches(daemon: Daemon, signer: Signer) -> None:
    """The line pairs a running signer, which comes to its daemon over TLS without a restart."""
    assert daemon.rpc("signer-status")["paired"] is False
    signer.service.start()
    offered = daemon.rpc("signer-pair")
    assert daemon.rpc("signer-status")["pairing_until"] == offered["expires"]
    signer.paired(offered["line"])
    daemon.attached()
    status = daemon.rpc("signer-status")
    assert status["paired"]
    assert status["pairing_until"] is None
    assert status["identity"] == checksum(wallet().identity)
    for name in ("link.pem", "daemon.json"):
        assert (signer.state / name).stat().st_mode & 0o777 == 0o600
    assert (daemon.directory / "signer-link.pem").stat().st_mode & 0o777 == 0o600


def test_the_secret_is_nowhere_but_in_the_line(daemon: Daemon, signer: Signer) -> None:
    """Neither the database nor any log nor the signer's files hold the one-time secret."""
    text = daemon.pair_line()
    line = PairingLine.read(text)
    with psycopg.connect(daemon.dsn) as connection:
        (offer,) = connection.execute("select * from pairing_offer").fetchall()
        assert line.secret not in offer
    signer.paired(text)
    with psycopg.connect(daemon.dsn) as connection:
        assert connection.execute("select * from pairing_offer").fetchall() == []
        (paired,) = connection.execute("select * from paired_signer").fetchall()
        assert line.secret not in paired
    shown = text.split(",")[-2]
    for path in (daemon.service.log, *signer.state.iterdir()):
        assert shown.encode() not in path.read_bytes()
        assert line.secret not in path.read_bytes()


def test_a_line_is_used_once(daemon: Daemon, signer: Signer, new_signer: SignerMaker) -> None:
    """Whoever reads a used line is refused; the device that used it may repeat itself."""
    text = daemon.pair_line()
    signer.paired(text)
    thief = new_signer()
    done = thief.pair(text)
    assert done.returncode == 1
    assert "was used" in done.stderr
    assert not (thief.state / "daemon.json").exists()
    signer.paired(text)
    signer.service.start()
    daemon.attached()


def test_an_expired_line_is_refused_by_both_sides(daemon: Daemon, signer: Signer) -> None:
    """The signer does not try an expired line, and the daemon does not take it."""
    text = daemon.pair_line(expires=1)
    daemon.until(lambda status: status["pairing_until"] is None)
    done = signer.pair(text)
    assert (done.returncode, "has expired" in done.stderr) == (1, True)
    done = signer.pair(changed(text, expires=2_000_000_000))
    assert done.returncode == 1
    assert daemon.rpc("signer-status")["paired"] is False


async def test_secrets_are_not_guessed(daemon: Daemon, signer: Signer) -> None:
    """A wrong secret is refused, and after a few nobody at that address is listened to."""
    text = daemon.pair_line()
    own = signer.state / "link.pem"
    ensure_pair(own, "customersigner", "client")
    for number in range(6):
        guess = PairingLine.read(changed(text, secret=bytes([number]) * 16))
        with pytest.raises(PairingFailed, match="secret is wrong" if number < 5 else "too many"):
            await pair(guess, wallet().identity, own)
    with pytest.raises(PairingFailed, match="too many"):
        await pair(PairingLine.read(text), wallet().identity, own)
    assert daemon.rpc("signer-status")["paired"] is False


def test_a_man_in_the_middle_cannot_pair(daemon: Daemon, signer: Signer, tmp_path: Path) -> None:
    """With a certificate of his own he is seen by the signer, else refused by the daemon."""
    text = daemon.pair_line()
    with Proxy(daemon.port, impostor=tmp_path / "impostor.pem") as middle:
        done = signer.pair(changed(text, address=middle.address))
        assert done.returncode == 1
        assert "another certificate" in done.stderr
        assert not middle.read
        # Even a signer that believes his certificate proves something about it.
        fooled = changed(
            text, address=middle.address, fingerprint=fingerprint_of(middle.certificate)
        )
        done = signer.pair(fooled)
        assert done.returncode == 1
        assert b"pair.prove" in middle.read
    assert not (signer.state / "daemon.json").exists()
    assert daemon.rpc("signer-status")["paired"] is False
    signer.paired(text)


def test_a_man_in_the_middle_cannot_carry_the_link(
    daemon: Daemon, signer: Signer, tmp_path: Path
) -> None:
    """Afterwards the signer says nothing to another certificate, and returns to the right one."""
    signer.paired(daemon.pair_line())
    with Proxy(daemon.port, impostor=tmp_path / "impostor.pem") as middle:
        signer.redirect(middle.address)
        signer.service.start()
        assert "in between" in signer.logged("daemon_not_trusted")["message"]
        assert not middle.read
        signer.redirect(f"127.0.0.1:{daemon.port}")
        daemon.attached()


def test_offer_and_pairing_survive_the_daemons_death(daemon: Daemon, signer: Signer) -> None:
    """Killed after the offer and after the pairing, the daemon knows both when it is back."""
    text = daemon.pair_line()
    daemon.service.kill()
    daemon.service.start()
    signer.paired(text)
    daemon.service.kill()
    daemon.service.start()
    signer.service.start()
    daemon.attached()


def test_a_new_pairing_replaces_the_old_one(
    daemon: Daemon, signer: Signer, new_signer: SignerMaker
) -> None:
    """Once another device is paired, the first is cut and its certificate is refused."""
    signer.paired(daemon.pair_line())
    signer.service.start()
    first = daemon.attached()
    second = new_signer()
    second.paired(daemon.pair_line())
    signer.logged("daemon_hung_up")
    daemon.lost()
    second.service.start()
    assert daemon.attached() > first


def test_forgetting_cuts_the_signer_at_once(daemon: Daemon, signer: Signer) -> None:
    """The attached signer is cut and refused; pairing it anew lets it in again."""
    assert daemon.refused("signer-forget") == "not_found"
    signer.paired(daemon.pair_line())
    signer.service.start()
    daemon.attached()
    forgotten = daemon.rpc("signer-forget")
    assert forgotten["identity"] == checksum(wallet().identity)
    daemon.lost()
    signer.logged("link_lost")
    status = daemon.rpc("signer-status")
    assert (status["paired"], status["attached"]) == (False, False)
    daemon.service.kill()
    daemon.service.start()
    assert daemon.rpc("signer-status")["paired"] is False
    signer.paired(daemon.pair_line())
    daemon.attached()


def test_a_signer_of_another_wallet_is_refused(
    daemon: Daemon, signer: Signer, new_signer: SignerMaker
) -> None:
    """A database belongs to one wallet: another's signer is told so when it is paired."""
    signer.paired(daemon.pair_line())
    signer.service.start()
    daemon.attached()
    daemon.rpc("signer-forget")
    other = new_signer(words=OTHER_WORDS)
    done = other.pair(daemon.pair_line())
    assert done.returncode == 1
    assert "belongs to another wallet" in done.stderr
    assert daemon.rpc("signer-status")["paired"] is False


@pytest.mark.parametrize(
    "text", ["", "nonsense", "customerd-pair-1,x,y,z,1", "customerd-pair-1,h:1,,,", WORDS]
)
def test_what_is_no_line_is_not_repeated(signer: Signer, text: str) -> None:
    """A damaged line ends with a clear message that does not show it."""
    done = signer.pair(text)
    assert done.returncode == 1
    assert done.stderr.startswith("customersigner: ")
    assert "Traceback" not in done.stderr
    assert "sausage" not in done.stderr


def customerctl(daemon: Daemon, *arguments: str) -> str:
    """Run a command and return what it shows."""
    command = [sys.executable, "-m", "customerctl", "--socket", str(daemon.socket), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_commands_say_what_to_do(daemon: Daemon, signer: Signer) -> None:
    """`signer-pair` shows a code and a line that can be copied; the others say how it stands."""
    shown = customerctl(daemon, "signer-pair", "--expires", "60", "--address", "localhost")
    (line,) = (row for row in shown.splitlines() if row.startswith("customerd-pair-1,"))
    assert f",localhost:{daemon.port}," in line
    assert "█▀▀▀▀▀█" in shown or "█ ▄▄▄▄▄ █" in shown
    assert "customersigner pair" in shown
    assert "pairing open" in customerctl(daemon, "signer-status")
    signer.paired(line)
    assert daemon.rpc("signer-status")["fingerprint"] in customerctl(daemon, "signer-status")
    assert "is forgotten" in customerctl(daemon, "signer-forget")
