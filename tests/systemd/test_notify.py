"""What the daemon tells systemd is true, and what systemd does about a daemon that ails."""

from __future__ import annotations

from tests.flow.world import World
from tests.systemd.network import TESTS, BoxedNetwork, interpreter
from tests.systemd.waiting import answered, journal_of, until

WATCHDOG = "1s"


def run_hanging(network: BoxedNetwork, part: str) -> None:
    """Have the unit run a daemon of which SIGUSR1 makes a part hang."""
    network.write(
        "/usr/bin/customerd-hanging",
        f"#!{interpreter()}\n"
        "import runpy, sys\n"
        "sys.path[:0] = ['/usr/lib/customerd', '/usr/lib/customerd/site-packages']\n"
        f"runpy.run_path('/{TESTS}/hanging.py', run_name='__main__')\n",
        mode=0o755,
    )
    network.drop_in(
        "customerd.service",
        "[Service]\n"
        f"WatchdogSec={WATCHDOG}\n"
        "Environment=CUSTOMERD_CHAIN_STUCK_AFTER=500ms\n"
        f"ExecStart=\nExecStart=/usr/bin/customerd-hanging {part}\n",
    )
    network.daemon.restart()


def test_ready_means_that_the_database_is_there(network: BoxedNetwork) -> None:
    """Without a server the start waits, says so and answers; it is ready once the server is up."""
    network.database.stop()
    until(lambda: network.daemon.show("StatusText").startswith("database away"))
    assert network.daemon.running
    network.daemon.stop()
    network.box.shell("systemctl", "start", "--no-block", "customerd.service")
    assert answered(lambda: network.rpc("getinfo"))["mode"] == "starting"
    until(lambda: "waiting for PostgreSQL" in network.daemon.show("StatusText"))
    assert network.daemon.state == "activating"
    network.database.start()
    until(lambda: network.daemon.running)
    assert network.rpc("getinfo")["database"] is True


def test_the_status_tells_how_it_is(network: BoxedNetwork) -> None:
    """`systemctl status` shows at once that the signer is away, and back."""
    until(lambda: network.daemon.show("StatusText").startswith("ready: "))
    network.signer.stop()
    until(lambda: network.daemon.show("StatusText").startswith("safe mode (no signer"))
    network.signer.start()
    until(lambda: network.daemon.show("StatusText").startswith("ready: "))


def restarted_by_the_watchdog(network: BoxedNetwork) -> None:
    """Have a part of the daemon hang, and wait until systemd has started another."""
    hanging = network.daemon.pid
    network.daemon.kill("USR1")
    until(lambda: network.daemon.show("NRestarts") != "0" and network.daemon.pid != hanging)
    said = [line["MESSAGE"] for line in network.daemon.journal("--lines=200")]
    assert any("Watchdog timeout" in text for text in said)


def test_a_daemon_that_hangs_is_restarted_and_goes_on(world: World) -> None:
    """Its event loop hangs in the middle of a payment: the next daemon completes that."""
    network: BoxedNetwork = world.network  # type: ignore[assignment]
    run_hanging(network, "loop")
    network.wait_mode("ready")
    label = world.establish()
    merchant = network.merchants["coffee"].service
    merchant.kill("STOP")
    operation = world.rpc("pay", label=label, amount="0.25 ETH", wait=False)["operation"]
    restarted_by_the_watchdog(network)
    merchant.kill("CONT")
    done = answered(lambda: network.rpc("wait", operation=operation, timeout=60))
    assert done["status"] == "done"
    assert world.balances(label) == (750_000_000, 250_000_000)


def test_a_watcher_that_hangs_is_restarted(network: BoxedNetwork) -> None:
    """The event loop turns, but the chain is not followed any more: that is no life, either."""
    run_hanging(network, "follower")
    network.wait_mode("ready")
    restarted_by_the_watchdog(network)
    # It follows the chain again.
    before = network.wait_mode("ready")["chain"]["head"]
    network.chain.mine()
    network.wait_info(lambda info: info["chain"]["head"] > before)


def test_a_killed_daemon_is_back_for_who_waits(network: BoxedNetwork) -> None:
    """After SIGKILL the socket is still there: who connects meanwhile is answered by the next."""
    killed = network.daemon.pid
    network.daemon.kill()
    assert answered(lambda: network.rpc("getinfo"))["pid"] != killed
    assert network.listening.running
    assert until(lambda: network.daemon.running)


def test_a_daemon_that_fails_and_fails_does_not_take_its_socket_along(
    network: BoxedNetwork,
) -> None:
    """However often it fails, who connects waits, and is answered when the fault is repaired."""
    network.daemon.stop()
    # More often, and faster, than systemd lets a unit fail that says nothing.
    network.drop_in(
        "customerd.service", "[Service]\nRestartSec=10ms\nExecStart=\nExecStart=/bin/false\n"
    )
    with journal_of(network.box, "--unit=customerd.service") as wait:
        network.box.shell("systemctl", "start", "--no-block", "customerd.service")
        wait("restart counter is at 8")
    assert network.listening.running
    network.remove_drop_in("customerd.service")
    assert answered(lambda: network.rpc("getinfo"))["mode"] in ("starting", "safe", "ready")
    assert network.listening.running


def test_a_wrong_configuration_is_told(network: BoxedNetwork) -> None:
    """The journal names the mistake; the socket stays, and who waits is answered in the end."""
    network.daemon.stop()
    right = network.config.read_text()
    network.config.write_text(right + "[chian]\n")
    try:
        with journal_of(network.box, "--unit=customerd.service") as wait:
            network.box.shell("systemctl", "start", "--no-block", "customerd.service")
            wait("chian is not known; did you mean chain?")
            wait("restart counter is at 1")
        assert network.listening.running
    finally:
        network.config.write_text(right)
    assert answered(lambda: network.rpc("getinfo"))["pid"]


def test_a_reload_is_done_when_systemctl_returns(network: BoxedNetwork) -> None:
    """`systemctl reload` applies what can change; what cannot be read fails and changes nothing."""
    right = network.config.read_text()
    before = network.daemon.pid

    def told() -> list[str]:
        return [line["MESSAGE"] for line in network.daemon.journal("--lines=30")]

    try:
        network.config.write_text(right + '[signer]\nrequest_timeout = "7s"\n')
        network.box.shell("systemctl", "reload", "customerd.service")
        # It is in force: nothing is left to apply.
        assert network.rpc("reload")["applied"] == []
        assert any("signer.request_timeout is changed" in text for text in told())
        network.config.write_text(right + "[chian]\n")
        failed = network.box.shell("systemctl", "reload", "customerd.service", check=False)
        assert failed.returncode != 0
        assert any("chian is not known; did you mean chain?" in text for text in told())
        assert network.rpc("getinfo")["mode"] == "ready"
        assert network.daemon.running
    finally:
        network.config.write_text(right)
    network.box.shell("systemctl", "reload", "customerd.service")
    assert network.daemon.pid == before
