"""What our services cannot do, tried from inside under the settings of their units."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.systemd.network import TESTS, UNITS, BoxedNetwork, interpreter

SCORES = {
    "customerd": 1.0,
    "customerd@": 1.0,
    "customersigner": 0.6,
    "customersigner@": 0.6,
    "merchantd": 1.0,
}
PROCESSES = ("customerd", "customersigner", "merchantd")
NOWHERE = {
    "etc": "EROFS",
    "usr": "EROFS",
    "var": "EROFS",
    "run": "EACCES",
    "credstore": "EACCES",
    "homes": "EACCES",
    "netlink": "EAFNOSUPPORT",
    "packet": "EAFNOSUPPORT",
    "executable": "EPERM",
    "users": "EPERM",
    "mount": "EPERM",
    "root": "EPERM",
    "clock": "EPERM",
    "suid": "EPERM",
    "NoNewPrivs": "1",
    "Seccomp": "2",
    "CapBnd": "0" * 16,
    "CapEff": "0" * 16,
    "others": False,
    "sysctl": False,
    "devices": [],
    "state": "done",
    "tmp": "done",
    "unix": "done",
}
"""What holds for all of them; the last three they need."""
ONLINE = {
    "inet": "done",
    "loopback": "done",
    "internet": "done",
    "metadata": "EPERM",
    "multicast": "EPERM",
}
OFFLINE = dict.fromkeys((*ONLINE,), "EAFNOSUPPORT")


@pytest.fixture(scope="module")
def everywhere(shared_units: BoxedNetwork) -> BoxedNetwork:
    """The machine with routes to everywhere, which all lead back to itself."""
    shared_units.box.shell("ip", "route", "replace", "default", "dev", "lo")
    shared_units.box.shell("ip", "route", "replace", "multicast", "224.0.0.0/4", "dev", "lo")
    return shared_units


def probed(network: BoxedNetwork, name: str) -> dict[str, object]:
    """Return what the probe found under the settings of a unit."""
    unit = (UNITS / f"{name}.service").read_text()
    unit = re.sub(r"^Type=.*", "Type=oneshot", unit, flags=re.MULTILINE)
    unit = re.sub(
        r"^(Restart|ConditionPathExists|Requires|Wants)=.*\n", "", unit, flags=re.MULTILINE
    )
    unit = re.sub(
        r"^ExecStart=.*", f"ExecStart={interpreter()} /{TESTS}/probe.py", unit, flags=re.MULTILINE
    )
    told = f"[Service]\nStandardOutput=truncate:/run/{name}.json"
    unit = re.sub(r"^\[Service\]$", told, unit, flags=re.MULTILINE)
    network.write(f"/run/systemd/system/probe-{name}.service", unit)
    network.box.shell("systemctl", "daemon-reload")
    network.box.shell("systemctl", "start", f"probe-{name}.service")
    found = json.loads(network.box.path(f"/run/{name}.json").read_text())
    network.box.path(f"/var/lib/{name}/probe").unlink()
    assert isinstance(found, dict)
    return found


@pytest.mark.parametrize(
    ("name", "network_as_seen"),
    [("customerd", ONLINE), ("merchantd", ONLINE), ("customersigner", OFFLINE)],
)
def test_a_service_is_confined(
    everywhere: BoxedNetwork, name: str, network_as_seen: Mapping[str, str]
) -> None:
    """It writes its own folder alone, gains nothing, sees nobody else, and reaches what it must."""
    found = probed(everywhere, name)
    assert found.pop("uid") != 0
    assert found == {**NOWHERE, **network_as_seen}


@pytest.mark.parametrize("name", PROCESSES)
def test_a_running_service_has_the_limits(network: BoxedNetwork, name: str) -> None:
    """The process itself: a user of its own, no capability, a filter of system calls, no core."""
    process = network.box.path(f"/proc/{network.unit(name).pid}")
    status = dict(
        line.split(":\t", 1)
        for line in (process / "status").read_text().splitlines()
        if "\t" in line
    )
    assert status["NoNewPrivs"] == "1"
    assert status["Seccomp"] == "2"
    assert int(status["CapBnd"], 16) == int(status["CapEff"], 16) == 0
    passwd = network.box.path("/etc/passwd").read_text()
    (uid,) = re.findall(rf"^{name}:x:(\d+):", passwd, flags=re.MULTILINE)
    assert status["Uid"].split() == [uid] * 4
    assert re.search(
        r"^Max core file size +0 +0 ", (process / "limits").read_text(), flags=re.MULTILINE
    )


@pytest.mark.parametrize(("name", "most"), SCORES.items())
def test_the_score_of_a_unit(name: str, most: float, tmp_path: Path) -> None:
    """`systemd-analyze security` finds little left to close."""
    unit = tmp_path / f"{name}1.service" if name.endswith("@") else tmp_path / f"{name}.service"
    unit.write_text((UNITS / f"{name}.service").read_text())
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", f"--threshold={most * 10:.0f}", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr


def test_what_runs_is_what_was_scored(network: BoxedNetwork) -> None:
    """The booted systemd gives the loaded units the same scores."""
    for name, most in SCORES.items():
        unit = f"{name}1.service" if name.endswith("@") else f"{name}.service"
        network.box.shell("systemd-analyze", "security", f"--threshold={most * 10:.0f}", unit)


def test_the_units_verify(network: BoxedNetwork) -> None:
    """`systemd-analyze verify` finds nothing to say about any unit."""
    names = [path.name.replace("@.", "@one.") for path in sorted(UNITS.glob("*.s[eo]*"))]
    done = network.box.shell("systemd-analyze", "verify", "--man=no", *names)
    assert (done.stdout, done.stderr) == ("", "")
    names = [path.name for path in sorted((UNITS / "user").glob("*.s[eo]*"))]
    personal = ("env", "XDG_RUNTIME_DIR=/run", "systemd-analyze", "--user", "verify")
    done = network.box.shell(*personal, "--man=no", *names)
    assert (done.stdout, done.stderr) == ("", "")


def test_every_manual_page_that_a_unit_names_is_there() -> None:
    """`systemctl help` finds what the units promise."""
    pages = {path.name for path in (UNITS.parent / "man").iterdir()}
    for path in sorted(UNITS.rglob("*.s[eo]*")):
        named = re.findall(r"man:([\w.-]+)\((\d)\)", path.read_text())
        assert named, path
        assert {f"{name}.{section}" for name, section in named} <= pages, path


@pytest.mark.parametrize("name", ["customerd", "customersigner"])
def test_a_template_differs_in_names_alone(name: str) -> None:
    """An instance is confined, watched and restarted as that of the host's own wallet is."""

    def settings(name: str) -> list[str]:
        lines = (UNITS / name).read_text().splitlines()
        return [line for line in lines if line and not line.startswith("#")]

    own = settings(f"{name}.service")
    template = settings(f"{name}@.service")
    for line, instance in zip(own, template, strict=True):
        plain = instance.replace("@%i.", ".").replace("/%i", "")
        plain = re.sub(rf"(, wallet %i|:{name}\.%i\.[a-z-]+)$", "", plain)
        assert plain in (line, f"{line} --config /etc/customerd.toml")
