"""The fixtures every test may use live in plugins, one file per part."""

from __future__ import annotations

pytest_plugins = ["tests.fix_chain", "tests.fix_log", "tests.fix_postgres"]
