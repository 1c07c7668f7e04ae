"""python -m tools.box: boxes from the shell."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from tools.box.machine import SIZE, Box, BoxError, Plan, as_unit


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is that of what ran inside, 125 when the box failed."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command: list[str] = []
    if "--" in given:
        command = given[given.index("--") + 1 :]
        given = given[: given.index("--")]
    options = _parser().parse_args(given)
    options.command = command or getattr(options, "command", [])
    try:
        return _COMMANDS[options.what](options)
    except BoxError as error:
        print(f"box: {error}", file=sys.stderr)
        return 125


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tools.box", description=__doc__)
    commands = parser.add_subparsers(dest="what", required=True)
    up = commands.add_parser("up", help="boot a machine; it stays until `down`")
    up.add_argument("--owner", type=int, metavar="PID", help="it ends when this process does")
    within = commands.add_parser(
        "with", help="up; run what follows -- on the host, $BOX the name; down"
    )
    for each in (up, within):
        each.add_argument("name")
        each.add_argument("--tree", help="boot this folder or tar file, not the host's root")
        each.add_argument("--size", default=SIZE, help="how much may be written")
        each.add_argument("--bind", action="append", default=[], metavar="SOURCE[:PLACE]")
        each.add_argument("--bind-ro", action="append", default=[], metavar="SOURCE[:PLACE]")
        each.add_argument("--copy", action="append", default=[], metavar="SOURCE:PLACE")
    for name, told in (
        ("run", "run a command inside as a unit of its own"),
        ("sh", "run a command inside, outside of all units"),
        ("net", "the same with the host's network, to fetch packages"),
    ):
        each = commands.add_parser(name, help=told)
        each.add_argument("name")
        each.add_argument("command", nargs=argparse.REMAINDER)
    for name, told in (("push", "copy into the box"), ("pull", "copy out of the box")):
        each = commands.add_parser(name, help=told)
        each.add_argument("name")
        each.add_argument("source")
        each.add_argument("target")
    for name, told in (("reboot", "reboot it"), ("down", "end it")):
        commands.add_parser(name, help=told).add_argument("name")
    return parser


def _plan(options: argparse.Namespace) -> Plan:
    return Plan(
        tree=str(Path(options.tree).resolve()) if options.tree else None,
        size=options.size,
        binds=tuple(options.bind),
        binds_read_only=tuple(options.bind_ro),
        copies=tuple(options.copy),
    )


def _up(options: argparse.Namespace) -> int:
    box = Box.up(options.name, _plan(options), owner=options.owner)
    return _tell(box)


def _tell(box: Box) -> int:
    """Print the state of the whole system; it booted also when a unit failed."""
    state = box.shell("systemctl", "is-system-running", check=False).stdout.strip()
    print(state)
    return 0 if state in ("running", "degraded") else 1


def _with(options: argparse.Namespace) -> int:
    with Box.up(options.name, _plan(options), owner=os.getpid()):
        return subprocess.run(
            options.command, env={**os.environ, "BOX": options.name}, check=False
        ).returncode


def _inside(entering: Callable[[Box, list[str]], list[str]]) -> Callable[..., int]:
    def run(options: argparse.Namespace) -> int:
        command = entering(Box(options.name), options.command)
        os.execvp(command[0], command)  # noqa: S606 - it takes this process' place

    return run


def _push(options: argparse.Namespace) -> int:
    Box(options.name).push(Path(options.source), options.target)
    return 0


def _pull(options: argparse.Namespace) -> int:
    Box(options.name).pull(options.source, Path(options.target))
    return 0


def _reboot(options: argparse.Namespace) -> int:
    box = Box(options.name)
    box.reboot()
    return _tell(box)


def _down(options: argparse.Namespace) -> int:
    Box(options.name).down()
    return 0


_COMMANDS: dict[str, Callable[[argparse.Namespace], int]] = {
    "up": _up,
    "with": _with,
    "run": _inside(lambda box, command: box.entering(*as_unit(*command))),
    "sh": _inside(lambda box, command: box.entering(*command)),
    "net": _inside(lambda box, command: box.entering(*command, network=True)),
    "push": _push,
    "pull": _pull,
    "reboot": _reboot,
    "down": _down,
}

if __name__ == "__main__":
    sys.exit(main())
