"""The lock files pin everything the project installs and name no address."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

REQUIREMENTS = Path(__file__).parents[2] / "requirements"
LOCKS = sorted(REQUIREMENTS.glob("*.txt"))


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_package_is_pinned_by_hash(lock: Path) -> None:
    """Each entry of a lock file is an exact version with at least one SHA-256, and nothing else."""
    entries = re.sub(r"\\\n\s*", "", lock.read_text()).splitlines()
    assert entries
    for entry in entries:
        assert re.fullmatch(
            r"[a-z0-9.-]+==\S+( ; [^#@/]+?)? ?(--hash=sha256:[0-9a-f]{64} ?)+", entry
        ), entry


def test_locks_agree() -> None:
    """A package that several lock files name has the same version in all of them."""
    versions: dict[str, set[str]] = {}
    for lock in LOCKS:
        for name, version in re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.MULTILINE):
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


def test_node_is_pinned_by_integrity() -> None:
    """The npm lock pins every package by integrity and leaves the registry to the user's npm."""
    lock = json.loads((REQUIREMENTS / "npm" / "package-lock.json").read_text())
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    assert packages
    for entry in packages.values():
        assert entry["integrity"].startswith("sha512-")
        assert "resolved" not in entry
