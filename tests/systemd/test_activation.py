"""The socket is always there, and with it the daemon: whoever connects starts it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from tests.systemd.network import BoxedNetwork, Unit
from tests.systemd.waiting import journal_of, until

CLIENTS = 12


def ask_from_many(network: BoxedNetwork, meanwhile: Callable[[], object]) -> list[object]:
    """Ask from many clients again and again while something is done; return what failed."""
    over = threading.Event()
    answers: list[int] = []
    failures: list[object] = []

    def ask() -> None:
        while not over.is_set():
            try:
                answers.append(network.rpc("getinfo")["pid"])
            except Exception as error:
                failures.append(error)

    clients = [threading.Thread(target=ask) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    try:
        meanwhile()
    finally:
        over.set()
        for client in clients:
            client.join()
    assert len(answers) >= CLIENTS
    return failures


def test_a_command_starts_the_daemon(network: BoxedNetwork) -> None:
    """With only the socket up, `customerctl getinfo` starts the daemon and is answered."""
    network.daemon.stop()
    assert network.daemon.state == "inactive"
    assert network.listening.running
    done = network.ctl("getinfo")
    assert done.returncode == 0, done.stderr
    assert "customerd" in done.stdout
    assert until(lambda: network.daemon.running)


def test_clients_of_a_daemon_that_is_down_are_all_answered(network: BoxedNetwork) -> None:
    """Many connect at once while it is down: they wait in the backlog, and one start serves all."""
    network.daemon.stop()
    assert ask_from_many(network, lambda: network.wait_mode("ready")) == []
    # A start by a socket begins to count anew.
    assert int(network.daemon.show("NRestarts")) == 0


def test_clients_of_a_restarting_daemon_are_all_answered(network: BoxedNetwork) -> None:
    """Two restarts under load: no client finds the door closed, or gets no answer."""

    def restart() -> None:
        network.daemon.restart()
        network.daemon.restart()

    assert ask_from_many(network, restart) == []


def test_stop_ends_all_and_the_next_command_brings_it_back(network: BoxedNetwork) -> None:
    """`customerctl stop` ends daemon and watcher though a signer dials; a command starts it."""
    with journal_of(network.box, "--unit=customersigner.service") as wait_for_signer:
        assert network.ctl("stop").returncode == 0
        until(lambda: network.daemon.state == "inactive")
        assert network.daemon.show("Result") == "success"
        # The signer has found nobody: its socket is gone with the daemon, and starts no other.
        wait_for_signer("daemon_not_reached")
    assert network.daemon.state == "inactive"
    assert network.box.shell("pgrep", "-u", "customerd", check=False).stdout == ""
    assert network.listening.running
    assert not network.signer_socket.exists()
    assert network.ctl("getinfo").returncode == 0
    until(lambda: network.daemon.running)
    assert network.signer_socket.exists()


def test_stopping_socket_and_service_ends_it_for_good(network: BoxedNetwork) -> None:
    """Nothing listens any more; a client is told how to start it."""
    network.box.shell("systemctl", "stop", "customerd.socket", "customerd.service")
    for name in ("customerd.socket", "customerd-signer.socket", "customerd-monitor.socket"):
        unit = Unit(network.box, name)
        until(lambda unit=unit: unit.state == "inactive")
    assert not [path for path in network.box.path("/run/customerd").iterdir() if path.is_socket()]
    done = network.ctl("getinfo")
    assert done.returncode == 3
    assert "systemctl start customerd" in done.stderr
    assert network.daemon.state == "inactive"


def test_starting_the_service_alone_brings_its_sockets(network: BoxedNetwork) -> None:
    """`systemctl start customerd` is enough; each socket has its mode from the first moment."""
    network.box.shell("systemctl", "stop", "customerd.socket", "customerd.service")
    network.daemon.start()
    sockets = ("customerd.sock", "monitor.sock", "signer.sock")
    named = network.box.shell(
        "stat", "--format=%n %a %U %G", *(f"/run/customerd/{name}" for name in sockets)
    ).stdout.splitlines()
    assert named == [
        "/run/customerd/customerd.sock 600 customerd customerd",
        "/run/customerd/monitor.sock 660 customerd customerd-monitor",
        "/run/customerd/signer.sock 660 customerd customersigner",
    ]


def test_another_user_is_not_let_in(network: BoxedNetwork) -> None:
    """The owner's socket refuses every user but its own and root."""
    done = network.as_user("nobody", "customerctl", "getinfo", check=False)
    assert done.returncode == 3
    assert "permission denied" in done.stderr
    assert network.as_user("root", "customerctl", "getinfo").returncode == 0
