"""Carries out a command: one connection, one call, or the few that waiting takes."""

from __future__ import annotations

import os
import sys

from customerctl.endpoint import TLS, absence, socket_path, tls_address
from customerctl.failures import (
    DONE,
    FAILED,
    INTERRUPTED,
    NO_DAEMON,
    USAGE,
    Failure,
    goes_on,
    of_error,
    of_operation,
)
from customerctl.later import Later
from customerctl.output import is_terminal, print_blocks, print_json
from customerctl.progress import Progress
from customerctl.screens import event_line, outcome, screen
from zkchannels.jsonrpc.client import BlockingClient, ConnectError
from zkchannels.jsonrpc.errors import ConnectionLost, RpcError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from customerctl.arguments import Request

OPERATIONS = ("establish", "pay", "refund", "close")
FILES = ("backup", "restore")
SLOW = 2.0
"""Seconds without an answer after which we say that we wait."""


def perform(request: Request) -> int:
    """Do what is asked and show it; return the exit code. Raises Failure."""
    if request.command == "token-restrict":
        from customerctl.tokens import restrict

        print(restrict(request.params), flush=True)
        return DONE
    if request.command == "logs":
        from customerctl.logs import show

        return show(request.params, wallet=request.wallet, as_json=request.as_json)
    try:
        client = _connect(_place(request))
    except ConnectError as error:
        message, hint = absence(error)
        raise Failure(NO_DAEMON, "no_daemon", message, hint=hint) from None
    with client:
        try:
            if request.token is not None:
                from customerctl.tokens import read_token

                client.call("authenticate", {"token": read_token(request.token)})
            if request.command in OPERATIONS:
                return _operate(client, request)
            if request.command == "wait":
                return _wait_for(client, request)
            if request.command == "subscribe":
                return _subscribe(client, request)
            return _call(client, request)
        except RpcError as error:
            raise of_error(error, request.command) from None
        except ConnectionLost as error:
            raise Failure(
                NO_DAEMON, "connection_lost", str(error), hint="is it running? try again"
            ) from None


def _place(request: Request) -> str:
    return socket_path(request.socket, wallet=request.wallet, monitor=request.token is not None)


def _connect(path: str) -> BlockingClient:
    if not path.startswith(TLS):
        return BlockingClient(path)
    from zkchannels.jsonrpc.tls_client import TlsClient

    return TlsClient(*tls_address(path))


def _call(client: BlockingClient, request: Request) -> int:
    method, params = request.command, request.params or None
    if method == "rpc":
        method, params = request.params["method"], _read_json(request.params.get("params"))
    if method in FILES and isinstance(params, dict) and "file" in params:
        # The daemon has a working directory of its own.
        whole = os.path.abspath(params["file"])  # noqa: PTH100 - pathlib takes long to import
        params = {**params, "file": whole}
    waiting = Later(SLOW, _say_waiting)
    try:
        result = client.call(method, params)
    finally:
        waiting.cancel()
    if request.as_json or request.command == "rpc":
        print_json(result)
        return DONE
    try:
        blocks = screen(method, result)
    except (KeyError, TypeError) as error:
        raise Failure(
            FAILED,
            "unreadable",
            f"the daemon's answer is not as expected: {error!r}",
            hint="customerd may be of another version; --json shows the answer as it is",
        ) from None
    print_blocks(blocks)
    return DONE


def _say_waiting() -> None:
    if is_terminal(sys.stderr):
        print("customerctl: waiting for customerd to answer ...", file=sys.stderr, flush=True)


def _read_json(text: str | None) -> Any:
    if text is None:
        return None
    import json

    try:
        params = json.loads(_read_input(text))
    except ValueError as error:
        raise Failure(USAGE, "usage", f"the parameters are no JSON: {error}") from None
    if not isinstance(params, dict | list):
        raise Failure(USAGE, "usage", "the parameters are an object or a list")
    return params


def _read_input(text: str) -> str:
    """Return the text, or standard input when it is "-"."""
    if text != "-":
        return text
    if sys.stdin is None:
        raise Failure(USAGE, "usage", "standard input is closed")
    try:
        return sys.stdin.buffer.read().decode()
    except UnicodeDecodeError:
        raise Failure(USAGE, "usage", "standard input is not UTF-8") from None


def _operate(client: BlockingClient, request: Request) -> int:
    """Have an operation queued, then wait for its end unless that is not wanted."""
    command, params = request.command, {**request.params, "wait": False}
    if params.get("note") == "-":
        params["note"] = _read_input("-").removesuffix("\n")
    # With a key of its own the request can be repeated, should its answer be lost.
    params.setdefault("idempotency_key", os.urandom(16).hex())
    if not request.params.get("wait", True):
        operation = _queue(client, command, params)
        _show_outcome(request, operation, None)
        return DONE
    title = f"{command} {params.get('label') or params.get('merchant')}"
    with _progress(client, title) as progress:
        operation = _queue(client, command, params, progress)
        operation = _await_end(client, operation, {}, progress)
    _show_outcome(request, operation, client)
    return DONE


def _queue(
    client: BlockingClient,
    command: str,
    params: dict[str, Any],
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Request an operation; return it as it was queued."""
    key = params["idempotency_key"]
    try:
        operation: dict[str, Any] = client.call(
            command, params, None if progress is None else progress.notified
        )
    except ConnectionLost as error:
        raise Failure(
            NO_DAEMON,
            "connection_lost",
            f"{error}; whether it took the {command} is unknown",
            hint=f"repeat the command with --idempotency-key {key}: that cannot do it twice",
            idempotency_key=key,
        ) from None
    except KeyboardInterrupt:
        raise Failure(
            INTERRUPTED,
            "interrupted",
            f"interrupted; whether customerd took the {command} is unknown",
            hint="customerctl operations shows it",
            idempotency_key=key,
        ) from None
    return operation


def _wait_for(client: BlockingClient, request: Request) -> int:
    identity = request.params["operation"]
    with _progress(client, f"operation {identity}") as progress:
        operation = client.call("operation", {"operation": identity}, progress.notified)
        operation = _await_end(client, operation, request.params, progress)
    _show_outcome(request, operation, client)
    return DONE


def _await_end(
    client: BlockingClient, operation: dict[str, Any], params: dict[str, Any], progress: Progress
) -> dict[str, Any]:
    """Return the operation once it is done; raises Failure when it ended otherwise."""
    identity = operation["operation"]
    progress.follow(operation)
    try:
        ended: dict[str, Any] = client.call(
            "wait", {**params, "operation": identity}, progress.notified
        )
    except RpcError as error:
        raise of_error(error, "wait", operation=identity) from None
    except ConnectionLost as error:
        raise Failure(
            NO_DAEMON, "connection_lost", str(error), hint=goes_on(identity), operation=identity
        ) from None
    except KeyboardInterrupt:
        raise Failure(
            INTERRUPTED,
            "interrupted",
            "interrupted",
            hint=goes_on(identity),
            operation=identity,
        ) from None
    if ended["status"] != "done":
        raise of_operation(ended)
    progress.stop(done=True)
    return ended


def _show_outcome(
    request: Request, operation: dict[str, Any], client: BlockingClient | None
) -> None:
    """Show an operation; `client` is asked how a closed channel stands on chain."""
    if request.as_json:
        print_json(operation)
        return
    channel = None
    if client is not None and operation["kind"] == "close":
        channel = _channel(client, operation["label"])
    print_blocks(outcome(operation, channel))


def _channel(client: BlockingClient, label: str) -> dict[str, Any] | None:
    """Return the channel, or None when it is renamed or gone: the operation is done anyway."""
    try:
        channel: dict[str, Any] = client.call("show", {"label": label})
    except (RpcError, ConnectionLost):
        return None
    return channel


def _progress(client: BlockingClient, title: str) -> Progress:
    """Ask for the events that progress is drawn from, where somebody sees it."""
    visible = is_terminal(sys.stderr)
    if visible:
        try:
            client.call("subscribe", {"topics": ["operation"]})
        except RpcError:
            visible = False  # the call that follows says what is the matter
    return Progress(title, visible=visible)


def _subscribe(client: BlockingClient, request: Request) -> int:
    last: int | None = None

    def show(_name: str, event: dict[str, Any]) -> None:
        nonlocal last
        last = event["seq"]
        if request.as_json:
            print_json(event, one_line=True)
        else:
            print_blocks([event_line(event)])

    subscribed = client.call("subscribe", request.params, show)
    for name, event in client.notifications():
        show(name, event)
    after = subscribed["after"] if last is None else last
    topics = "".join(f" {topic}" for topic in request.params.get("topics", ()))
    raise Failure(
        NO_DAEMON,
        "connection_lost",
        "the daemon closed the connection",
        hint=f"go on where it ended: customerctl subscribe{topics} --after {after}",
    )
