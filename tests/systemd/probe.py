"""What a service can do: tried from inside, told in one line of JSON.

    python -IS probe.py

Run under the settings of a unit, instead of its program.
"""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)
NEW_USERS = 0x10000000
DONE = "done"


def tried(act: Callable[[], object]) -> str:
    """Return the name of the error, or "done"."""
    try:
        act()
    except OSError as error:
        return errno.errorcode.get(error.errno or 0, "?")
    return DONE


def checked(result: int) -> None:
    """Raise what a function of the C library failed with."""
    if result < 0:
        raise OSError(ctypes.get_errno(), "failed")


def written(folder: str) -> str:
    """Try to make a file."""
    return tried(lambda: Path(folder, "probe").write_bytes(b""))


def connected(family: int, address: tuple[str, int]) -> str:
    """Try to send a datagram, which needs nobody at the other end."""

    def send() -> None:
        with socket.socket(family, socket.SOCK_DGRAM) as sending:
            sending.sendto(b"", address)

    return tried(send)


def opened(family: int, kind: int) -> str:
    """Try to have a socket."""
    return tried(lambda: socket.socket(family, kind).close())


def seen() -> dict[str, object]:
    """Return what there is to see."""
    status = Path("/proc/self/status").read_text()
    shown = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {
        **{name: shown[name].strip() for name in ("NoNewPrivs", "Seccomp", "CapBnd", "CapEff")},
        "others": Path("/proc/1").exists(),
        "sysctl": Path("/proc/sys").exists(),
        "homes": tried(lambda: list(Path("/root").iterdir())),
        "devices": [name for name in ("sda", "vda", "kmsg", "mem") if Path("/dev", name).exists()],
        "uid": os.getuid(),
    }


def main() -> None:
    """Try everything."""
    state = os.environ["STATE_DIRECTORY"]
    sys.stdout.write(
        json.dumps(
            {
                "state": written(state),
                "etc": written("/etc"),
                "usr": written("/usr/lib"),
                "var": written("/var/lib"),
                "run": written("/run/customerd"),
                "tmp": written("/tmp"),
                "credstore": tried(lambda: list(Path("/etc/credstore.encrypted").iterdir())),
                "unix": opened(socket.AF_UNIX, socket.SOCK_STREAM),
                "inet": opened(socket.AF_INET, socket.SOCK_STREAM),
                "netlink": opened(socket.AF_NETLINK, socket.SOCK_RAW),
                "packet": opened(socket.AF_PACKET, socket.SOCK_RAW),
                "loopback": connected(socket.AF_INET, ("127.0.0.1", 9)),
                "metadata": connected(socket.AF_INET, ("169.254.169.254", 80)),
                "internet": connected(socket.AF_INET, ("198.51.100.1", 80)),
                "multicast": connected(socket.AF_INET, ("224.0.0.1", 9)),
                "executable": tried(
                    lambda: mmap.mmap(
                        -1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
                    )
                ),
                "users": tried(lambda: checked(LIBC.unshare(NEW_USERS))),
                "mount": tried(lambda: checked(LIBC.mount(b"none", b"/tmp", b"tmpfs", 0, None))),
                "root": tried(lambda: os.setuid(0)),
                "clock": tried(lambda: time.clock_settime(time.CLOCK_REALTIME, -1)),
                "suid": tried(lambda: Path(state).chmod(0o4700)),
                **seen(),
            }
        )
    )
    sys.stdout.flush()


if __name__ == "__main__":
    main()
