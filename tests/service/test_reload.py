"""`reload`: what can change changes before the answer, what cannot is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable

import msgspec

from customerd.config import Settings
from customerd.reloading import LIVE, changed, merged
from tests.service.conftest import Supervised

Make = Callable[..., Supervised]


def _ctl(daemon: Supervised, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "customerctl", "--socket", str(daemon.socket), *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_reload_applies_what_can_change_and_names_what_cannot(supervised: Make) -> None:
    """systemd hears of the beginning and the end; the caller hears what holds when it returns."""
    daemon = supervised()
    daemon.service.start()
    assert "nothing differs" in _ctl(daemon, "reload").stdout
    before = daemon.config.read_text()
    assert not any(event["level"] == "debug" for event in daemon.log())
    daemon.config.write_text(
        'log_level = "debug"\n'
        + before.replace('lease = "2s"', 'lease = "3s"')
        + '[merchant]\npatience = "1s"\n'
    )
    told = len(daemon.service.told)
    done = _ctl(daemon, "reload")
    assert done.returncode == 0
    assert "log_level is changed" in done.stdout
    assert "merchant.patience is changed" in done.stdout
    assert "database.lease changes when customerd is restarted" in done.stdout
    daemon.rpc("list")
    assert any(event["level"] == "debug" for event in daemon.log())
    daemon.service.wait_told("READY=1")
    states = [each.split("\n") for each in daemon.service.told[told:]]
    (began,) = [each for each in states if each[0] == "RELOADING=1"]
    assert began[1].removeprefix("MONOTONIC_USEC=").isdecimal()
    ended = states[states.index(began) + 1]
    assert ended[0] == "READY=1"
    assert ended[1].startswith("STATUS=safe mode (no signer")

    daemon.config.write_text('[chain]\nmargn = "1h"\n')
    refused = _ctl(daemon, "reload")
    assert refused.returncode != 0
    assert "margn is not known; did you mean margin?" in refused.stderr
    os.kill(daemon.service.pid, signal.SIGHUP)
    daemon.service.wait_next("READY=1")
    daemon.rpc("list")
    assert [event["reason"] for event in daemon.log() if event["event"] == "not_reloaded"]
    # Nothing was changed, and READY ended each reload.
    daemon.config.write_text('log_level = "debug"\n' + before)
    assert "merchant.patience is changed" in _ctl(daemon, "reload").stdout


def test_only_settings_that_exist_are_live() -> None:
    """Every setting that is changed at once is one, and changes nothing but itself."""
    known = {"log_level"}
    for section in msgspec.structs.fields(Settings):
        kind = getattr(Settings(), section.name)
        if isinstance(kind, msgspec.Struct):
            known |= {f"{section.name}.{each.name}" for each in msgspec.structs.fields(kind)}
    assert known >= LIVE
    new = msgspec.convert(
        {"log_level": "debug", "chain": {"margin": 7200.0, "symbol": "XTZ"}}, Settings
    )
    settings = merged(Settings(), new)
    assert changed(Settings(), settings) == ["chain.margin", "log_level"]
    assert changed(settings, new) == ["chain.symbol"]
