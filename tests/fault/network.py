"""A devnet whose programs can be ended or stopped at any boundary."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tests.fault.control import Control
from zkchannels.devnet.network import Network
from zkchannels.devnet.service import Service

PROGRAMS = ("customerd", "customersigner", "merchantd")


class FaultNetwork(Network):
    """The network of the flow tests with every program behind the launcher."""

    def __init__(self, directory: Path, **options: Any) -> None:
        super().__init__(directory, **options)
        self.controls: dict[str, Control] = {}

    def program(self, program: str, name: str = "") -> list[str]:
        """Start the program by the launcher, under a control file of its own."""
        key = f"{program}-{name}" if name else program
        path = self.directory / f"{key}.control"
        if key not in self.controls:
            self.controls[key] = Control(path)
        return [sys.executable, "-m", "tests.fault.launcher", str(path), program]

    def service(self, program: str, merchant: str = "coffee") -> Service:
        """Return the service that runs a program."""
        if program == "merchantd":
            return self.merchants[merchant].service
        return self.daemon if program == "customerd" else self.signer

    def control(self, program: str, merchant: str = "coffee") -> Control:
        """Return the control of a program."""
        return self.controls[f"merchantd-{merchant}" if program == "merchantd" else program]
