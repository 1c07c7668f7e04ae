"""From exec to READY with an existing database, beside what importing the dependencies costs.

`python bench/startup.py [--json] [--rounds N]`
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from zkchannels.devnet.postgres import Cluster
from zkchannels.devnet.service import Service

TARGET = 0.4
IMPORTS = "import asyncio, psycopg, structlog, msgspec, sdnotify, coincurve"


def main() -> int:
    """Measure, print, and return 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    ready, imports = [], []
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as name,
        Cluster(Path(name) / "postgres") as cluster,
    ):
        directory = Path(name)
        cluster.create_database("startup")
        config = directory / "customerd.toml"
        config.write_text(
            f'[sockets]\nrpc = "{directory}/rpc.sock"\nsigner = "{directory}/signer.sock"\n'
            f'[database]\ndsn = "{cluster.dsn("startup")}"\n'
            '[chain]\nendpoints = ["http://127.0.0.1:9"]\n'
            f'[guard]\nkey = "{directory}/guard.key"\n'
        )
        # Compiled modules as an installation has them, whatever this shell says about them.
        compiled = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(directory / "pyc")}
        service = Service(
            "customerd",
            [sys.executable, "-m", "customerd", "--config", str(config)],
            log=directory / "log",
            environment=compiled,
        )
        for _ in range(options.rounds + 1):
            ready.append(service.start())
            service.stop()
            began = time.monotonic()
            subprocess.run(
                [sys.executable, "-c", IMPORTS], check=True, env={**os.environ, **compiled}
            )
            imports.append(time.monotonic() - began)
    del ready[0], imports[0]
    result = {
        "ready_s": {"min": min(ready), "median": statistics.median(ready)},
        "imports_s": {"min": min(imports), "median": statistics.median(imports)},
        "ratio": min(ready) / min(imports),
        "target_s": TARGET,
    }
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(name, value)
    return 0 if min(ready) <= TARGET else 1


if __name__ == "__main__":
    sys.exit(main())
