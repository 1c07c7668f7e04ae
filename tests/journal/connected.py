"""Become a program as systemd starts one whose output goes to the journal.

usage: python connected.py IDENTIFIER COMMAND...
"""

from __future__ import annotations

import os
import socket
import sys

STDOUT = "/run/systemd/journal/stdout"


def connect(identifier: str) -> None:
    """Lead standard output and error into the journal, and say so to the program."""
    stream = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    stream.connect(STDOUT)
    # Identifier, unit, priority, priorities by prefix; forward to syslog, kernel, console.
    stream.sendall(f"{identifier}\n\n6\n1\n0\n0\n0\n".encode())
    status = os.fstat(stream.fileno())
    os.environ["JOURNAL_STREAM"] = f"{status.st_dev}:{status.st_ino}"
    for number in (1, 2):
        os.dup2(stream.fileno(), number)


if __name__ == "__main__":
    connect(sys.argv[1])
    os.execv(sys.argv[2], sys.argv[2:])
