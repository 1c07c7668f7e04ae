"""Compile the contracts beside this file into the artefacts that are committed (needs Vyper).

Run as ``python -m zkchannels.escrow.compile``; a test compiles again and compares.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

CONTRACTS = ("Escrow", "TestToken")
DIRECTORY = Path(__file__).parent


def compiled(source: Path) -> dict[str, object]:
    """Artefact of one Vyper file: ABI, creation and runtime code, size of its immutables."""
    from vyper import __version__  # noqa: PLC0415  (a tool of development, absent from installations)
    from vyper.compiler import compile_code  # noqa: PLC0415

    text = source.read_text(encoding="utf-8")
    output = compile_code(
        text,
        contract_path=source.name,
        output_formats=["abi", "bytecode", "bytecode_runtime", "layout"],
    )
    immutables = output["layout"].get("code_layout", {})
    return {
        "compiler": f"vyper {__version__}",
        "source_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "immutables_length": sum(entry["length"] for entry in immutables.values()),
        "abi": output["abi"],
        "bytecode": output["bytecode"],
        "runtime_bytecode": output["bytecode_runtime"],
    }


def rendered(artefact: dict[str, object]) -> str:
    """The text of an artefact's file."""
    return json.dumps(artefact, indent=1) + "\n"


def main() -> int:
    """Write the artefact of every contract."""
    for name in CONTRACTS:
        artefact = compiled(DIRECTORY / f"{name}.vy")
        (DIRECTORY / f"{name}.json").write_text(rendered(artefact), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
