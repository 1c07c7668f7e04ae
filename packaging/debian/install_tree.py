#!/usr/bin/python3
"""Put a program and all that it imports into debian/PROGRAM, from files that are here already.

usage: debian/install_tree.py PROGRAM, in the root of the source
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

COMMANDS = {
    "customerd": ("customerd", "customerctl"),
    "customersigner": ("customersigner",),
    "merchantd": ("merchantd",),
}
NOT_SHARED = {
    "customerd": ("devnet",),
    "customersigner": ("devnet", "chain", "store", "caveats", "macaroon"),
    "merchantd": ("devnet", "caveats", "macaroon"),
}
"""Packages below zkchannels that the program does without."""

USELESS = re.compile(
    r"(^|/)(__pycache__|tests?|SelfTest|testing)/"
    r"|\.(pyi|pyx|pxd|pxi|c|h|cpp|typed)$"
    r"|\.dist-info/(RECORD|INSTALLER|REQUESTED|direct_url\.json)$"
    r"|^bin/|/\.hash/"
)
"""What never runs, or says where and when the package was built."""

LAUNCHER = """#!/usr/bin/python3 -IS
import sys

sys.path.insert(0, "/usr/lib/{program}")

from {command}.__main__ import main

sys.exit(main())
"""
"""Alone with the tree: nothing of the environment, the user or the system adds to its path."""


def main(program: str) -> None:
    """Fill debian/PROGRAM."""
    root = Path("debian") / program
    tree = root / "usr" / "lib" / program
    tree.mkdir(parents=True)
    _install_wheels(program, tree)
    for command in COMMANDS[program]:
        shutil.copytree(command, tree / command)
        launcher = root / "usr" / "bin" / command
        launcher.parent.mkdir(exist_ok=True)
        launcher.write_text(LAUNCHER.format(program=program, command=command), "utf-8")
        launcher.chmod(0o755)
    left_out = [f"zkchannels/{name}" for name in NOT_SHARED[program]]
    shutil.copytree(
        "zkchannels",
        tree / "zkchannels",
        ignore=lambda folder, names: [n for n in names if f"{folder}/{n}" in left_out],
    )
    _tidy(tree)
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    after = f"{sys.version_info.major}.{sys.version_info.minor + 1}"
    with Path(f"debian/{program}.substvars").open("a", encoding="utf-8") as substitutions:
        # Compiled modules are for one version of Python.
        substitutions.write(f"python:Depends=python3 (>= {version}~), python3 (<< {after})\n")


def _install_wheels(program: str, tree: Path) -> None:
    lock = Path("debian") / f"{program}.lock"
    lock.write_text(locked(Path("debian/wheels") / program), "utf-8")
    # pip refuses a lock that lacks what one of its packages requires.
    command = [sys.executable, "-m", "pip", "--isolated", "--quiet", "install", "--no-compile"]
    command += ["--disable-pip-version-check", "--no-cache-dir", "--no-input", "--no-index"]
    command += ["--find-links", "wheels", "--no-build-isolation", "--require-hashes"]
    command += ["--requirement", str(lock), "--target", str(tree)]
    command += ["--root-user-action", "ignore"]
    subprocess.run(command, check=True, env={**os.environ, "PIP_CONFIG_FILE": os.devnull})


def locked(names: Path) -> str:
    """Return what requirements/runtime.txt says of the packages named in a file, one a line."""
    text = Path("requirements/runtime.txt").read_text("utf-8")
    entries = re.findall(r"^(?:[a-z0-9-]+)==.*(?:\n .*)*", text, re.MULTILINE)
    by_name = {entry.partition("==")[0]: entry for entry in entries}
    return "".join(f"{by_name[name]}\n" for name in names.read_text("utf-8").split())


def _tidy(tree: Path) -> None:
    for path in sorted(tree.rglob("*"), reverse=True):
        if path.is_dir():
            if not any(path.iterdir()):
                path.rmdir()
            continue
        if USELESS.search(path.relative_to(tree).as_posix()):
            path.unlink()
            continue
        path.chmod(0o644)
        if path.suffix == ".py" and path.read_bytes().startswith(b"#!"):
            # None of them is a program here.
            path.write_bytes(path.read_bytes().partition(b"\n")[2])


if __name__ == "__main__":
    main(sys.argv[1])
