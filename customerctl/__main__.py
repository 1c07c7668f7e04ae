"""`customerctl`: one command to the daemon, its result shown, an exit code."""

from __future__ import annotations

import os
import sys

from customerctl import VERSION
from customerctl.arguments import UsageError, read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from customerctl.arguments import Request
    from customerctl.failures import Failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; returns its exit code (`customerctl help` lists them)."""
    if arguments is None:
        arguments = sys.argv[1:]
    _open_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()  # what cannot be written is told here, not by the interpreter's end
        return code
    except BrokenPipeError:
        _write_no_more()
        return 0
    except OSError as error:
        print(f"customerctl: cannot write the result: {error.strerror}", file=sys.stderr)
        _write_no_more()
        return 1


def _run(arguments: Sequence[str]) -> int:
    try:
        request = read(arguments)
        if request.command in ("", "help") or request.help or request.version:
            return _inform(request)
        from customerctl.calls import perform
    except UsageError as error:
        return _misunderstood(error, as_json="--json" in arguments)
    from customerctl.failures import INTERRUPTED, Failure

    try:
        return perform(request)
    except Failure as failure:
        return _failed(failure, request)
    except KeyboardInterrupt:
        return INTERRUPTED


def _inform(request: Request) -> int:
    """Answer without the daemon."""
    from customerctl.helping import explanation, overview

    if request.version:
        print(f"customerctl {VERSION}", flush=True)
        return 0
    name = request.command
    if name == "help" and not request.help:
        name = request.params.get("method", "")
        if name:
            read([name, "--help"])  # reports an unknown command
    print(explanation(name) if name else overview(), flush=True)
    asked = bool(request.command) or request.help
    return 0 if asked else 2


def _misunderstood(error: UsageError, *, as_json: bool) -> int:
    from customerctl.failures import USAGE, Failure
    from customerctl.helping import usage
    from customerctl.words import clean

    if as_json:
        from customerctl.output import print_json

        print_json(Failure(USAGE, "usage", str(error)).as_object())
        return USAGE
    print(f"customerctl: {clean(str(error))}", file=sys.stderr)
    if error.command is None:
        print("customerctl help lists the commands", file=sys.stderr)
    else:
        print(usage(error.command), file=sys.stderr)
        print(f"customerctl help {error.command} says more", file=sys.stderr)
    return USAGE


def _failed(failure: Failure, request: Request) -> int:
    from customerctl.failures import USAGE
    from customerctl.helping import usage
    from customerctl.words import clean

    if request.as_json or request.command == "rpc":
        from customerctl.output import print_json

        print_json(failure.as_object())
        return failure.exit_code
    print(f"customerctl: {clean(failure.message)}", file=sys.stderr)
    if failure.hint:
        print(f"  {clean(failure.hint)}", file=sys.stderr)
    if failure.exit_code == USAGE:
        print(usage(request.command), file=sys.stderr)
    return failure.exit_code


def _open_streams() -> None:
    """Have streams that can be written to, whatever we were started with."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115, PTH123
    for stream in (sys.stdout, sys.stderr):
        if stream.encoding.lower() != "utf-8":
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _write_no_more() -> None:
    """Keep the interpreter from complaining that what is left cannot be written."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(main())
