"""`customerd`: run the daemon in the foreground, or detached where there is no systemd."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from customerd import VERSION
from zkchannels.service.configuration import ConfigurationError, load, refuse_open_password

if TYPE_CHECKING:
    from customerd.config import Settings

DEFAULT_CONFIG = "/etc/customerd/customerd.toml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code: 0 ended, 1 failed, 2 usage or configuration."""
    options = _parse(arguments)
    from customerd.config import (  # noqa: PLC0415 - help need not pay for it
        PASSWORD,
        Settings,
        log_file,
        runtime_directory,
    )

    # Detached, the daemon reads it again from another working folder.
    path = Path(options.config).absolute()

    def read() -> Settings:
        settings = load(Settings, path if path.exists() or options.explicit else None)
        refuse_open_password(path, settings.database.dsn, PASSWORD)
        return settings

    try:
        settings = read()
    except (ConfigurationError, OSError) as error:
        _print(str(error))
        return 2
    if options.check_config:
        print(f"{options.config}: no errors")  # noqa: T201
        return 0
    if options.detach:
        from zkchannels.service.detach import detach  # noqa: PLC0415

        return detach(
            lambda: serve(settings, read, complain=_tell_caller),
            pidfile=_in_folder(options.pidfile or f"{runtime_directory()}/customerd.pid"),
            logfile=_in_folder(options.logfile or log_file()),
            timeout=options.timeout,
        )
    return serve(settings, read)


def _in_folder(path: str) -> Path:
    """Return the path; its folder is made if it is not there."""
    with contextlib.suppress(OSError):  # opening the file says why it cannot be
        Path(path).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(path)


def _print(reason: str) -> None:
    print(f"customerd: {reason}", file=sys.stderr)  # noqa: T201


def _tell_caller(reason: str) -> NoReturn:
    """Print what keeps the daemon from starting, and have the waiting caller print it, too."""
    from zkchannels.service.detach import DetachError  # noqa: PLC0415

    _print(reason)
    raise DetachError(reason)


def serve(
    settings: Settings,
    read: Callable[[], Settings],
    *,
    complain: Callable[[str], None] = _print,
) -> int:
    """Run the daemon until it is stopped; `read` reads the settings again.

    `complain` hears why it cannot run.
    """
    from customerd.app import Daemon  # noqa: PLC0415
    from zkchannels.service.logging import configure, get_logger  # noqa: PLC0415
    from zkchannels.service.notify import Notifier  # noqa: PLC0415
    from zkchannels.service.process import (  # noqa: PLC0415
        heed_sigterm,
        keep_memory_private,
        open_files,
        to_the_end,
    )
    from zkchannels.service.secretfile import SecretFileError  # noqa: PLC0415
    from zkchannels.service.sockets import AlreadyRunning, SocketError  # noqa: PLC0415

    heed_sigterm()
    keep_memory_private()
    open_files()
    configure("customerd", level=settings.log_level)

    async def run() -> int:
        return await Daemon(settings, Notifier.from_environment(), read=read).run()

    try:
        return asyncio.run(to_the_end(run()))
    except (AlreadyRunning, SocketError, SecretFileError) as error:
        complain(str(error))
        return 1
    except PermissionError as error:
        hint = "set [sockets] and [guard] in --config FILE"
        complain(f"{error.filename}: {error.strerror}; {hint}")
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
        help="with --detach: where its number is written; beside the sockets when absent",
    )
    parser.add_argument(
        "--logfile",
        metavar="FILE",
        help="with --detach: where it logs to; /var/log/customerd.log, a person's own in the state "
        "directory, when absent",
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
