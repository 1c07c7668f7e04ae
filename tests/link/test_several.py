"""Several daemons on one database, of which one acts; several signers, of which one serves."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.link.conftest import SignerMaker
from tests.link.parts import Daemon, Signer

QUICK = 'ping_interval = "200ms"\ngone_after = "1s"\n'


@pytest.fixture
def standby(place: Path, daemon: Daemon) -> Iterator[Daemon]:
    """A daemon with a certificate of its own that stands by for the other."""
    standby = Daemon(place / "standby", daemon.dsn, signer=QUICK)
    try:
        standby.service.start()
        yield standby
    finally:
        standby.service.stop()


def also(daemon: Daemon) -> str:
    """Where a daemon is, for a signer that is paired."""
    return str(daemon.rpc("signer-address")["line"])


# -- daemons ----------------------------------------------------------------------------------


def test_a_paired_signer_follows_the_lease_over_tls(
    daemon: Daemon, standby: Daemon, signer: Signer
) -> None:
    """Paired once and told of the standby, it goes there when the first is killed, and back."""
    signer.paired(daemon.pair_line())
    assert standby.refused("signer-pair") == "not_ready"
    signer.paired(also(standby))
    signer.service.start()
    daemon.attached()
    daemon.service.kill()
    standby.attached()
    assert standby.rpc("signer-status")["paired"]
    daemon.service.start()
    standby.service.stop()
    daemon.attached()
    stood_by = signer.logged("daemon_stands_by")
    assert stood_by["daemon"] == f"127.0.0.1:{standby.port}"
    assert "another daemon holds the lease" in stood_by["reason"]


def test_a_daemon_that_hangs_is_left_for_the_one_that_took_over(
    daemon: Daemon, standby: Daemon, signer: Signer
) -> None:
    """A daemon that is stopped takes connections and says nothing: the signer goes on."""
    signer.paired(daemon.pair_line())
    signer.paired(also(standby))
    signer.service.start()
    daemon.attached()
    os.kill(daemon.service.pid, signal.SIGSTOP)
    try:
        standby.attached()
    finally:
        os.kill(daemon.service.pid, signal.SIGCONT)
    assert daemon.service.wait(60) == 1


def test_a_standby_says_nothing_but_that_it_stands_by(
    daemon: Daemon, standby: Daemon, signer: Signer, new_signer: SignerMaker
) -> None:
    """It pairs nobody and takes no signer; a line with its address is checked before it is kept."""
    stranger = new_signer()
    done = stranger.pair(also(standby))
    assert (done.returncode, "no daemon is paired" in done.stderr) == (1, True)
    signer.paired(daemon.pair_line())
    line = daemon.pair_line().split(",")
    place = also(standby).split(",")
    done = stranger.pair(",".join([line[0], *place[1:], *line[3:]]))
    assert done.returncode == 1
    assert "standing by" in done.stderr
    assert not (stranger.state / "daemon.json").exists()
    signer.paired(also(standby))
    own = new_signer(arguments=("--socket", str(standby.signer_socket)))
    own.service.start()
    assert "another daemon holds the lease" in own.logged("daemon_stands_by")["reason"]
    assert standby.rpc("signer-status")["attached"] is False
    known = (signer.state / "daemon.json").read_bytes()
    mixed = also(daemon).split(",")[:2] + also(standby).split(",")[2:]
    done = signer.pair(",".join(mixed))
    assert (done.returncode, "another certificate" in done.stderr) == (1, True)
    stranger.paired(daemon.pair_line())  # from here on the other one is not known
    done = signer.pair(also(daemon))
    assert done.returncode == 1
    assert "does not know this signer" in done.stderr
    assert (signer.state / "daemon.json").read_bytes() == known


# -- signers ----------------------------------------------------------------------------------


def test_of_two_signers_the_later_one_keeps_the_link(
    daemon: Daemon, signer: Signer, place: Path
) -> None:
    """Both well, they do not take turns: the first is told so, and an alarm holds."""
    signer.paired(daemon.pair_line())
    second = signer.copy(place / "second")
    signer.service.start()
    first = daemon.attached()
    second.service.start()
    try:
        generation = daemon.attached(after=first)
        told = signer.logged("superseded")
        assert "run one at a time" in told["message"]
        assert generation == first + 1
        (alarm,) = (a for a in daemon.rpc("getinfo")["alarms"] if a["kind"] == "two_signers")
        assert "run one" in alarm["message"]
        status = daemon.rpc("signer-status")
        assert (status["attached"], status["generation"]) == (True, generation)
        # It has not given up: once the later one hangs, it is back by itself.
        os.kill(second.service.pid, signal.SIGSTOP)
        assert daemon.attached(after=generation) == generation + 1
        assert len(signer.log("superseded")) == 1
        # Started anew it is the later one.
        second.service.kill()
        second.service.start()
        assert daemon.attached(after=generation + 1) == generation + 2
        assert not second.log("superseded")
    finally:
        second.service.kill()
