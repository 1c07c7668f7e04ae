"""A whole network on a machine of its own, installed from the packages and nothing else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.debian.packages import minimal_tree
from tests.systemd.network import CHAIN_UNIT, TESTS, BoxedNetwork
from tools.box import Box, Plan
from zkchannels.devnet.anvil import executable

# A reboot must not undo the chain.
LASTING_CHAIN = CHAIN_UNIT.replace(
    " --silent", " --silent --state /var/lib/anvil/state.json --preserve-historical-states"
).replace("DynamicUser=yes", "DynamicUser=yes\nStateDirectory=anvil\nKillSignal=SIGINT")
APT = ("apt-get", "--quiet=2", "--yes", "-o", "Dpkg::Use-Pty=0")


@contextmanager
def clean_machine(name: str, folder: Path) -> Iterator[Box]:
    """A booted minimal Debian, with a chain's node and none of our packages."""
    unit = folder / "anvil.service"
    unit.write_text(LASTING_CHAIN)
    copies = (f"{executable()}:/{TESTS}/anvil", f"{unit}:/lib/systemd/system/anvil.service")
    with Box.up(name, Plan(tree=str(minimal_tree()), copies=copies)) as box:
        yield box


class InstalledNetwork(BoxedNetwork):
    """The network that the packages make, with their own users, database and units."""

    def install(self, packages: list[Path]) -> str:
        """Install packages from files, with what they depend on and no more; return what was said.

        The lists of what Debian has are fetched when they are not there.
        """
        for path in packages:
            self.box.push(path, f"/root/{path.name}")
        if not any(self.box.path("/var/lib/apt/lists").glob("*Packages*")):
            self.box.with_network(*APT, "update")
        files = [f"/root/{path.name}" for path in packages]
        done = self.box.with_network(*APT, "install", "--no-install-recommends", *files)
        return done.stdout + done.stderr

    def upgrade(self, packages: list[Path]) -> None:
        """Install packages whose dependencies are there."""
        for path in packages:
            self.box.push(path, f"/root/{path.name}")
        self.box.shell("dpkg", "--install", *(f"/root/{path.name}" for path in packages))

    def apt(self, *arguments: str) -> str:
        """Run apt-get without a network; return what was said."""
        done = self.box.shell(*APT, *arguments)
        return done.stdout + done.stderr

    def reboot(self) -> None:
        """Reboot the machine; its sockets are found at other places afterwards."""
        self.box.reboot()
        self.find_sockets()

    def find_sockets(self) -> None:
        """Say where the sockets of the machine, as it has booted now, are."""
        for name, file in (("socket", "customerd"), ("signer_socket", "signer")):
            setattr(self, name, self.box.path(f"/run/customerd/{file}.sock"))

    def start_postgres(self) -> None:
        """Nothing: the packages brought it."""

    def start_daemon(self) -> None:
        """Configure it as an administrator does."""
        super().start_daemon()
        self.daemon.restart()

    def failed_units(self) -> list[str]:
        """Return the units that systemd calls failed."""
        shown = self.box.shell("systemctl", "--failed", "--plain", "--no-legend").stdout
        return [line.split()[0] for line in shown.splitlines()]

    def traces(self) -> set[str]:
        """Return every path of the machine's disk that is named for one of the packages."""
        names = ("*customer*", "*merchantd*")
        wanted = " -o ".join(f"-name '{name}'" for name in names)
        pruned = "-path /proc -o -path /sys -o -path /root -o -path /var/log/journal"
        found = self.box.shell(
            "sh", "-c", f"find / \\( {pruned} \\) -prune -o \\( {wanted} \\) -print"
        )
        return set(found.stdout.split())
