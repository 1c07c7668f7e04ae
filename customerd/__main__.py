"""`customerd`: run the daemon in the foreground, or detached where there is no systemd."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from customerd import VERSION
from zkchannels.service.configuration import ConfigurationError, load, refuse_open_password

if TYPE_CHECKING:
    from customerd.config import Settings

DEFAULT_CONFIG = "/etc/customerd/customerd.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code: 0 ended, 1 failed, 2 usage or configuration."""
    options = _parse(arguments)
    from customerd.config import PASSWORD, Settings  # noqa: PLC0415 - help need not pay for it

    # Detached, the daemon reads it again from another working folder.
    path = Path(options.config).absolute()

    def read() -> Settings:
        settings = load(Settings, path if path.exists() or options.explicit else None)
        refuse_open_password(path, settings.database.dsn, PASSWORD)
        return settings

    try:
        settings = read()
    except (ConfigurationError, OSError) as error:
        print(f"customerd: {error}", file=sys.stderr)  # noqa: T201
        return 2
    if options.check_config:
        print(f"{options.config}: no errors")  # noqa: T201
        return 0
    if options.detach:
        from zkchannels.service.detach import detach  # noqa: PLC0415

        return detach(
            lambda: serve(settings, read),
            pidfile=Path(options.pidfile),
            logfile=Path(options.logfile),
            timeout=options.timeout,
        )
    return serve(settings, read)


def serve(settings: Settings, read: Callable[[], Settings]) -> int:
    """Run the daemon until it is stopped; `read` reads the settings again."""
    from customerd.app import Daemon  # noqa: PLC0415
    from zkchannels.service.logging import configure, get_logger  # noqa: PLC0415
    from zkchannels.service.notify import Notifier  # noqa: PLC0415
    from zkchannels.service.process import keep_memory_private  # noqa: PLC0415
    from zkchannels.service.secretfile import SecretFileError  # noqa: PLC0415
    from zkchannels.service.sockets import AlreadyRunning, SocketError  # noqa: PLC0415

    keep_memory_private()
    configure("customerd", level=settings.log_level)

    async def run() -> int:
        return await Daemon(settings, Notifier.from_environment(), read=read).run()

    try:
        return asyncio.run(run())
    except (AlreadyRunning, SocketError, SecretFileError) as error:
        print(f"customerd: {error}", file=sys.stderr)  # noqa: T201
        return 1
    except PermissionError as error:
        hint = "set [sockets] and [guard] in --config FILE"
        print(f"customerd: {error.filename}: {error.strerror}; {hint}", file=sys.stderr)  # noqa: T201
        return 1
    except Exception:
        get_logger("customerd").exception("failed")
        return 1


def parser() -> argparse.ArgumentParser:
    """Return what reads the command line; the manual page is made from it."""
    parser = argparse.ArgumentParser(
        prog="customerd", description="Always-on customer daemon for private payment channels."
    )
    parser.add_argument(
        "--config", metavar="FILE", help=f"configuration file; default: {DEFAULT_CONFIG}"
    )
    parser.add_argument("--check-config", action="store_true", help="read it, report, and end")
    parser.add_argument("--detach", action="store_true", help="return once the daemon is ready")
    parser.add_argument(
        "--pidfile",
        metavar="FILE",
        default="/run/customerd/customerd.pid",
        help="with --detach: where its number is written",
    )
    parser.add_argument(
        "--logfile",
        metavar="FILE",
        default="/var/log/customerd.log",
        help="with --detach: where it logs to",
    )
    parser.add_argument(
        "--timeout", type=float, default=60.0, help="with --detach: seconds to wait"
    )
    parser.add_argument(
        "--version", action="version", version=f"customerd {VERSION}", help="show it"
    )
    return parser


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    options = parser().parse_args(arguments)
    options.explicit = options.config is not None
    options.config = options.config or DEFAULT_CONFIG
    return options


if __name__ == "__main__":
    sys.exit(main())
