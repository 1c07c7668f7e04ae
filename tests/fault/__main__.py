"""All crash points, all cuts, the nine failures; the last line counts the crash points.

python -m tests.fault [options of pytest]
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from tests.fault.campaign import SHARE, TALLY


def main() -> int:
    """Run the tests; 0 when everything survived."""
    os.environ.setdefault(SHARE, "1")
    folders = [folder for folder in ("tests/fault", "tests/nine") if Path(folder).is_dir()]
    code = int(pytest.main([*folders, *sys.argv[1:]]))
    for line in TALLY.lines():
        sys.stdout.write(line + "\n")
    return code or not TALLY.whole


if __name__ == "__main__":
    sys.exit(main())
