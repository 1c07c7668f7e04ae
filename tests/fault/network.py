"""A devnet whose programs can be ended or stopped at any boundary."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.fault.control import Control
from tests.fault.proxy import Proxy, merchant_proxy, signer_proxy
from tests.nursery import ForkedNetwork
from zkchannels.devnet.service import Service

PROCESSES = ("customerd", "customersigner", "merchantd-coffee", "merchantd-bakery")


class FaultNetwork(ForkedNetwork):
    """The network of the flow tests with every program behind the launcher."""

    def __init__(self, directory: Path, *, proxied: bool = False, **options: Any) -> None:
        """Begin with nothing; `proxied` puts a proxy before each merchant and before the daemon."""
        super().__init__(directory, **options)
        self.proxied = proxied
        self.proxies: dict[str, Proxy] = {}
        self.controls: dict[str, Control] = {}

    def program(self, program: str, name: str = "") -> list[str]:
        """Start the program by the launcher, under a control file of its own."""
        key = f"{program}-{name}" if name else program
        path = self.directory / f"{key}.control"
        if key not in self.controls:
            self.controls[key] = Control(path)
        return [sys.executable, "-m", "tests.fault.launcher", str(path), program]

    def service(self, process: str) -> Service:
        """Return the service that runs a process."""
        program, _, merchant = process.partition("-")
        if merchant:
            return self.merchants[merchant].service
        return self.daemon if program == "customerd" else self.signer

    def start_merchant(self, name: str) -> None:
        """Start a merchant, and what its customers take for it."""
        super().start_merchant(name)
        if self.proxied:
            parts = self.merchants[name]
            port = parts.address.rpartition(":")[2].partition("/")[0]
            proxy = self._stack.enter_context(merchant_proxy(self.directory / name, int(port)))
            self.proxies[name] = proxy
            address = parts.address.replace(f":{port}/", f":{proxy.port}/")
            self.merchants[name] = replace(parts, address=address)

    def start_signer(self) -> None:
        """Start the signer, and what it takes for its daemon."""
        if self.proxied:
            place = self.directory / "proxy.sock"
            proxy = signer_proxy(place, self.signer_socket)
            self.proxies["signer"] = self._stack.enter_context(proxy)
            self.signer_socket = place
        super().start_signer()

    def dsn(self, name: str) -> str:
        """Return the connection string of a program's database, a merchant's by its name."""
        return self.cluster.dsn(f"{name}_{self._databases}")
