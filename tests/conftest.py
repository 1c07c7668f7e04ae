"""The fixtures every test may use live in plugins, one file per part."""

from __future__ import annotations

import signal

pytest_plugins = [
    "tests.fix_adversary",
    "tests.fix_chain",
    "tests.fix_log",
    "tests.fix_network",
    "tests.fix_postgres",
]

# Background jobs of a shell ignore SIGINT, and so would every process that tests start and
# interrupt; a handler of our own is reset to the default when they are executed.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
