"""The packages, a newer version of them, and a machine with nothing but Debian's least."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import time
from pathlib import Path

from tests.systemd.network import CHECKOUT

PACKAGES = ("customerd", "customersigner", "merchantd")
CACHE = CHECKOUT / ".cache" / "debian"
SUITE = "bookworm"
A_DAY = 86_400.0


def build(folder: Path = CACHE / "packages") -> list[Path]:
    """Return the packages of this checkout, built unless they are there."""
    done = subprocess.run(
        [CHECKOUT / "tools" / "build_deb", folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    paths = [Path(line) for line in done.stdout.splitlines()]
    assert sorted(path.name.partition("_")[0] for path in paths) == sorted(PACKAGES)
    return paths


def minimal_tree() -> Path:
    """Return a folder with the smallest Debian that boots; made anew when it is a day old."""
    tree = CACHE / "tree"
    if tree.exists() and time.time() - tree.stat().st_mtime > A_DAY:
        shutil.rmtree(tree)
    if not tree.exists():
        making = CACHE / "tree.making"
        shutil.rmtree(making, ignore_errors=True)
        CACHE.mkdir(parents=True, exist_ok=True)
        # What the host gets its packages from.
        configured = [Path("/etc/apt/sources.list"), *Path("/etc/apt").glob("sources.list.d/*")]
        sources = [
            path
            for path in configured
            if path.is_file() and "deb" in path.read_text() and SUITE in path.read_text()
        ]
        made = subprocess.run(
            [
                *("mmdebstrap", "--quiet", "--variant=minbase", "--include=systemd-sysv,dbus"),
                *('--aptopt=Apt::Install-Recommends "false"', SUITE, making, *sources),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert made.returncode == 0, made.stderr
        making.rename(tree)
        tree.touch()
    return tree


def newer(package: Path, version: str, folder: Path) -> Path:
    """Return the same package as a later version, whose programs say so."""
    name, _, rest = package.name.partition("_")
    architecture = rest.partition("_")[2]
    tree = folder / name
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN" / "control"
    before = rest.partition("_")[0]
    control.write_text(control.read_text().replace(f"Version: {before}", f"Version: {version}"))
    stated = tree / "usr" / "lib" / name / name / "__init__.py"
    old = stated.read_bytes()
    new = old.replace(f'VERSION = "{before}"'.encode(), f'VERSION = "{version}"'.encode())
    stated.write_bytes(new)
    sums = tree / "DEBIAN" / "md5sums"
    sums.write_text(sums.read_text().replace(_md5(old), _md5(new)))
    made = folder / f"{name}_{version}_{architecture}"
    command = ["dpkg-deb", "--root-owner-group", "-Zgzip", "-z1", "--build", tree, made]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(tree)
    return made


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
