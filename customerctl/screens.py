"""What is shown of each result, whatever it is shown on: blocks of fields, tables and lines."""

from __future__ import annotations

import time

from customerctl.words import STEPS, age, clock, duration, lines_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, Literal

    Mood = Literal["", "good", "warning", "bad", "dim", "strong"]
    Cell = str | tuple[str, Mood]
    Result = dict[str, Any]


class Fields:
    """Names with their values, under a title."""

    __slots__ = ("rows", "title")

    def __init__(self, title: Cell, rows: list[tuple[str, Cell]]) -> None:
        self.title = title
        self.rows = rows


class Table:
    """Rows under column names; a name that ends in ">" stands for a column aligned right.

    The columns named in `whole` are never broken over lines: they are there to be copied.
    """

    __slots__ = ("columns", "empty", "rows", "whole")

    def __init__(
        self,
        columns: tuple[str, ...],
        rows: list[list[Cell]],
        *,
        empty: str,
        whole: tuple[str, ...] = (),
    ) -> None:
        self.columns = columns
        self.rows = rows
        self.empty = empty
        self.whole = whole


class Line:
    """One line of text; a `whole` one is not broken, as it is there to be copied."""

    __slots__ = ("mood", "text", "whole")

    def __init__(self, text: str, mood: Mood = "", *, whole: bool = False) -> None:
        self.text = text
        self.mood: Mood = mood
        self.whole = whole


class Raw:
    """Text for other programs, printed as it is."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


if TYPE_CHECKING:
    Block = Fields | Table | Line | Raw

_MODES: dict[str, Mood] = {
    "ready": "good",
    "starting": "warning",
    "standby": "warning",
    "safe": "warning",
    "stopping": "warning",
}
_STATUSES: dict[str, Mood] = {
    "idle": "good",
    "new": "dim",
    "closed": "dim",
    "asked": "warning",
    "decided": "warning",
    "suspect": "bad",
    "done": "good",
    "refused": "bad",
    "cancelled": "dim",
    "running": "warning",
    "queued": "dim",
}
_WAITING = {"confirm": STEPS["pay", "confirm"]}
"""Steps in which an operation waits for somebody."""
_CHAIN_STATUSES: dict[str, Mood] = {"expiring": "bad", "closing": "warning"}


def screen(method: str, result: Result) -> list[Block]:
    """Return the blocks that show the result of a method."""
    return _SCREENS.get(method, _anything)(result)


def event_line(event: Result) -> Line:
    """Return the line that shows one event of a subscription."""
    words = [clock(event["time"]), f"#{event['seq']}", f"{event['topic']}.{event['kind']}"]
    if event["label"] is not None:
        words.append(event["label"])
    words += _details(event)
    if event["operation"] is not None:
        words.append(event["operation"])
    return Line("  ".join(words), _mood_of_event(event), whole=True)


def outcome(operation: Result, channel: Result | None) -> list[Block]:
    """Return what an operation that was waited for came to; `channel` is what it left."""
    if operation["status"] != "done":
        return _unfinished(operation)
    sentence = _OUTCOMES[operation["kind"]](operation, channel)
    if operation["receipt"] is False:
        notice = "the merchant's answer is missing: it is paid, and the channel is being closed"
        return [Line(f"! {sentence}", "warning"), Line(f"  {notice}", "warning")]
    blocks: list[Block] = [Line(f"✓ {sentence}", "good")]
    if operation["service_note"]:
        first, *others = lines_of(operation["service_note"])
        blocks.append(Line(f"  merchant: {first}"))
        blocks += [Line(f"            {line}") for line in others]
    return blocks


def _unfinished(operation: Result) -> list[Block]:
    sentence = f"{_what(operation)}: {operation['status']}"
    if operation["status"] in ("refused", "cancelled"):
        error = operation["error"]
        reason = f"; {_reason(error)}" if error else ""
        return [Line(f"✗ {sentence}{reason}", "bad")]
    return [
        Line(f"{sentence}; the daemon goes on with it"),
        Line(f"  customerctl wait {operation['operation']}", "dim", whole=True),
    ]


def _reason(error: Result) -> str:
    """Write a refusal with its kind, which a policy's own words name already."""
    message, kind = str(error["message"]), str(error["kind"])
    return message if kind in message else f"{message} ({kind})"


def _what(operation: Result) -> str:
    """Write "pay 0.005 ETH on coffee"."""
    amount = operation["amount"]
    money = f" {amount['text']} on" if amount and operation["kind"] in ("pay", "refund") else ""
    return f"{operation['kind']}{money} {operation['label']}"


def _took(operation: Result) -> str:
    return duration(operation["updated"] - operation["created"])


def _held(operation: Result, words: str) -> str:
    held = operation["customer_balance"]
    return "" if held is None else f"; {held['text']} {words}"


def _paid(operation: Result, _channel: Result | None) -> str:
    verb = "paid" if operation["kind"] == "pay" else "refunded"
    money = operation["amount"]["text"] if operation["amount"] else ""
    return f"{verb} {money} on {operation['label']} in {_took(operation)}{_held(operation, 'left')}"


def _established(operation: Result, _channel: Result | None) -> str:
    sentence = f"channel {operation['label']} is open after {_took(operation)}"
    return sentence + _held(operation, "to spend")


def _closed(operation: Result, channel: Result | None) -> str:
    if channel is None:
        return f"channel {operation['label']} is closed after {_took(operation)}"
    shares = (
        f"{channel['customer_balance']['text']} for you, "
        f"{channel['merchant_balance']['text']} for the merchant"
    )
    if channel["chain_status"] == "closing":
        until = f" until {clock(channel['deadline'])}" if channel["deadline"] else ""
        return (
            f"the close of {operation['label']} is final after {_took(operation)}; "
            f"the escrow holds the money{until}, then pays {shares}"
        )
    return f"channel {operation['label']} is closed after {_took(operation)}: {shares}"


def _recovered(operation: Result, _channel: Result | None) -> str:
    sentence = f"the recovery of {operation['label']} ended after {_took(operation)}"
    return sentence + _held(operation, "known to be yours")


_OUTCOMES = {
    "pay": _paid,
    "refund": _paid,
    "establish": _established,
    "close": _closed,
    "recover": _recovered,
}


def _getinfo(info: Result) -> list[Block]:
    chain, signer = info["chain"], info["signer"]
    missing = ", ".join(kind.replace("_", " ") for kind in info["missing"])
    rows: list[tuple[str, Cell]] = [
        ("chain", _chain(chain)),
        ("database", ("up", "good") if info["database"] else ("does not answer", "bad")),
        ("signer", _signer_state(signer)),
        ("guard", info["guard"]),
        ("guard holds", info["guard_balance"] or ("balance not known yet", "dim")),
        ("channels", str(info["channels"])),
        ("operations", f"{info['operations']} at work" if info["operations"] else "none at work"),
        ("running", f"for {duration(info['uptime'])}, pid {info['pid']}"),
    ]
    if missing:
        rows.insert(0, ("missing", (missing, "warning")))
    backup = info["backup"]
    if backup is not None:
        behind = f"{backup['pending']} channels, {duration(backup['behind'])} behind"
        words = backup["trouble"] or (behind if backup["pending"] else "up to date")
        rows.append(("backup", (words, "bad") if backup["trouble"] else words))
    title = f"customerd {info['version']}: {info['mode']}"
    blocks: list[Block] = [Fields((title, _MODES.get(info["mode"], "")), rows)]
    return blocks + [_alarm(alarm) for alarm in info["alarms"]]


def _alarm(alarm: Result) -> Line:
    where = f"{alarm['label']}: " if alarm["label"] else ""
    mood: Mood = "warning" if alarm["level"] == "warning" else "bad"
    return Line(f"! {where}{alarm['message']} ({alarm['kind']})", mood)


def _chain(chain: Result) -> Cell:
    if chain["head"] is None:
        return ("no block seen yet", "warning")
    words = f"{chain['chain_id']}, head {chain['head']:,}"
    if chain["head_time"]:
        words += f" ({age(time.time() - chain['head_time'])} ago)"
    if chain["final"] is not None:
        words += f", final {chain['final']:,}"
    return words if chain["following"] else (f"{words}; not following", "bad")


def _signer_state(signer: Result) -> Cell:
    if not signer["attached"]:
        return ("not attached: safe mode, nothing can be spent", "warning")
    if not signer["compared"]:
        return ("attached, not yet compared with the database", "warning")
    return ("attached", "good")


def _signer_status(signer: Result) -> list[Block]:
    since = "never" if signer["since"] is None else clock(signer["since"])
    rows: list[tuple[str, Cell]] = [
        ("identity", signer["identity"] or ("not known yet", "dim")),
        ("account", signer["account"] or ("not known yet", "dim")),
        ("policies", ", ".join(signer["policies"]) or ("none", "dim")),
        ("generation", str(signer["generation"])),
        ("since", since),
        ("paired", _paired(signer)),
    ]
    if signer["pairing_until"] is not None:
        rows.append(("pairing open", (f"until {clock(signer['pairing_until'])}", "warning")))
    state = _signer_state(signer)
    words, mood = state if isinstance(state, tuple) else (state, "")
    blocks: list[Block] = [Fields((f"signer: {words}", mood), rows)]
    if signer.get("limits"):
        limits: list[list[Cell]] = [
            [each["name"], each["about"], each["limit"] or "", each["used"] or "", each["kind"]]
            for each in signer["limits"]
        ]
        blocks.append(
            Table(("policy", "about", "limit>", "used>", "when refused"), limits, empty="")
        )
    return blocks


def _paired(signer: Result) -> Cell:
    if not signer["paired"]:
        return ("no", "dim")
    return f"certificate {signer['fingerprint']}" if signer["fingerprint"] else "on a Unix socket"


def _signer_pair(pairing: Result) -> list[Block]:
    left = duration(max(0.0, pairing["expires"] - time.time()))
    return [
        Raw(pairing["qr"]),
        Raw(f"\n{pairing['line']}\n\n"),
        Line("On the signer's device: customersigner pair", "strong"),
        Line(f"It takes this line once, within {left}. Show it to nobody else.", "warning"),
    ]


def _signer_address(place: Result) -> list[Block]:
    return [
        Raw(place["qr"]),
        Raw(f"\n{place['line']}\n\n"),
        Line("On the device of a signer that is paired: customersigner pair", "strong"),
    ]


def _signer_forget(forgotten: Result) -> list[Block]:
    return [Line(f"✓ the signer of {forgotten['identity']} is forgotten", "good")]


def _balance(balance: Result) -> list[Block]:
    rows: list[list[Cell]] = [
        [
            (asset["symbol"], "strong"),
            asset["spendable"]["text"],
            asset["refundable"]["text"],
            asset["closing"]["text"],
            asset["escrow"],
        ]
        for asset in balance["assets"]
    ]
    accounts: list[list[Cell]] = [
        [
            name,
            balance[f"{name}_balance"] or ("not known yet", "dim"),
            balance[name] or ("no signer was attached yet", "dim"),
        ]
        for name in ("account", "guard")
    ]
    return [
        Table(
            ("asset", "spendable>", "refundable>", "closing>", "escrow"),
            rows,
            empty="No channels yet.",
            whole=("asset", "spendable>", "refundable>", "closing>"),
        ),
        Table(
            ("pays gas", "balance>", "address"),
            accounts,
            empty="",
            whole=("pays gas", "balance>", "address"),
        ),
    ]


def _list(result: Result) -> list[Block]:
    rows: list[list[Cell]] = [
        [
            (channel["label"], "strong"),
            _channel_status(channel),
            channel["customer_balance"]["text"],
            channel["merchant_balance"]["text"],
            _host(channel["merchant"]),
        ]
        for channel in result["channels"]
    ]
    return [
        Table(
            ("label", "status", "yours>", "merchant's>", "merchant"),
            rows,
            empty="No channels yet; customerctl help establish says how to open one.",
            whole=("yours>", "merchant's>"),
        )
    ]


def _host(address: str) -> str:
    return address.removeprefix("zkchannel://").partition("/")[0]


def _channel_status(channel: Result) -> Cell:
    """Write the local status, and the chain's where it asks for attention."""
    status, chain_status = channel["status"], channel["chain_status"]
    if chain_status in _CHAIN_STATUSES:
        return (f"{status}, {chain_status}", _CHAIN_STATUSES[chain_status])
    return (status, _STATUSES.get(status, ""))


def _show(channel: Result) -> list[Block]:
    chain_status = channel["chain_status"]
    rows: list[tuple[str, Cell]] = [
        ("yours", (channel["customer_balance"]["text"], "strong")),
        ("merchant's", channel["merchant_balance"]["text"]),
        (
            "deposits",
            (
                f"{channel['customer_deposit']['text']} by you, "
                f"{channel['merchant_deposit']['text']} by the merchant"
            ),
        ),
        ("on chain", (chain_status.replace("_", " "), _CHAIN_STATUSES.get(chain_status, ""))),
        ("merchant", channel["merchant"]),
        ("escrow", f"{channel['escrow']} on chain {channel['chain_id']}"),
        ("channel", channel["channel"]),
        ("state", "none with a pay token" if channel["index"] < 0 else str(channel["index"])),
        ("created", clock(channel["created"])),
    ]
    if channel["operation"] is not None:
        rows.insert(3, ("at work", channel["operation"]))
    if channel["deadline"] is not None:
        rows.insert(4, ("deadline", _deadline(channel["deadline"])))
    title = f"{channel['label']}: {channel['status']}"
    return [Fields((title, _STATUSES.get(channel["status"], "")), rows)]


def _deadline(deadline: float) -> Cell:
    left = deadline - time.time()
    if left <= 0:
        return (f"{clock(deadline)}, passed", "bad")
    return (f"{clock(deadline)}, in {duration(left)}", "warning")


def _renamed(channel: Result) -> list[Block]:
    return [Line(f"✓ the channel is now called {channel['label']}", "good")]


def _operations(result: Result) -> list[Block]:
    now = time.time()
    rows: list[list[Cell]] = [
        [
            operation["operation"],
            age(now - operation["created"]),
            operation["kind"],
            operation["label"],
            operation["amount"]["text"] if operation["amount"] else "",
            _progress(operation),
        ]
        for operation in result["operations"]
    ]
    return [
        Table(
            ("operation", "age>", "kind", "label", "amount>", "status"),
            rows,
            empty="No operations.",
            whole=("operation", "age>", "kind", "amount>"),
        )
    ]


def _progress(operation: Result) -> Cell:
    status = operation["status"]
    words = status
    if status == "running" and operation["step"]:
        words = _WAITING.get(operation["step"], f"running: {operation['step']}")
    elif operation["error"]:
        words = f"{status}: {operation['error']['kind']}"
    elif operation["receipt"] is False:
        return ("done, no receipt", "warning")
    return (words, _STATUSES.get(status, ""))


def _operation(operation: Result) -> list[Block]:
    rows: list[tuple[str, Cell]] = [
        ("operation", operation["operation"]),
        ("created", clock(operation["created"])),
    ]
    if operation["status"] in ("done", "refused", "cancelled"):
        rows.append(("ended", f"{clock(operation['updated'])}, after {_took(operation)}"))
    if operation["error"]:
        rows.append(("reason", (_reason(operation["error"]), "bad")))
    if operation["receipt"] is not None:
        receipt: Cell = "yes" if operation["receipt"] else ("none; it is paid", "warning")
        rows.append(("receipt", receipt))
    for line in lines_of(operation["service_note"] or ""):
        if line:
            rows.append(("note" if rows[-1][0] not in ("note", "") else "", line))
    waiting = _WAITING.get(operation["step"]) if operation["status"] == "running" else None
    title = f"{_what(operation)}: {waiting or operation['status']}"
    steps: list[list[Cell]] = [
        [
            step["name"],
            ("at work", "warning")
            if step["finished"] is None
            else duration(step["finished"] - step["started"]),
            clock(step["started"]),
        ]
        for step in operation["steps"]
    ]
    return [
        Fields((title, _STATUSES.get(operation["status"], "")), rows),
        Table(("step", "took>", "began"), steps, empty="No step taken yet."),
    ]


def _cancelled(operation: Result) -> list[Block]:
    return [Line(f"✓ cancelled: {_what(operation)}", "good")]


def _history(result: Result) -> list[Block]:
    rows: list[list[Cell]] = [
        [
            str(event["seq"]),
            clock(event["time"]),
            (f"{event['topic']}.{event['kind']}", _mood_of_event(event)),
            event["label"] or "",
            " ".join([*_details(event), *_identity(event)]),
        ]
        for event in result["events"]
    ]
    return [
        Table(
            ("number>", "time", "event", "label", "details"),
            rows,
            empty="Nothing is recorded.",
            whole=("number>", "time"),
        )
    ]


def _mood_of_event(event: Result) -> Mood:
    if event["topic"] == "operation":
        return "" if event["kind"] in ("step", "queued") else _STATUSES.get(event["kind"], "")
    return ""


def _details(event: Result) -> list[str]:
    """Write what is known of an event as name=value, without what is empty."""
    details = {name: value for name, value in event["details"].items() if value is not None}
    kind = details.pop("operation_kind", None)
    words = [] if kind is None else [str(kind)]
    return words + [f"{name}={value}" for name, value in details.items()]


def _identity(event: Result) -> list[str]:
    """Name the operation where it begins; on every row it would hide the rest."""
    return [event["operation"]] if event["operation"] and event["kind"] == "queued" else []


def _estimate(estimate: Result) -> list[Block]:
    rows: list[tuple[str, Cell]] = [
        ("fee", (estimate["fee"], "strong")),
        ("gas", f"{estimate['gas']:,}"),
        ("sends", ", ".join(estimate["transactions"]) or "no transaction"),
        ("takes", f"about {duration(estimate['seconds'])}"),
    ]
    return [Fields("estimate", rows), *(Line(f"  {note}", "dim") for note in estimate["notes"])]


def _token_created(result: Result) -> list[Block]:
    return [Raw(result["token"])]


def _token_list(result: Result) -> list[Block]:
    rows: list[list[Cell]] = [
        [
            token["id"],
            (token["status"], "good" if token["status"] == "valid" else "dim"),
            token["note"],
            ", ".join(token["methods"]),
            "all" if token["channels"] is None else str(len(token["channels"])),
            "never" if token["expires"] is None else clock(token["expires"]),
            ", ".join(token["rates"]),
            "" if token["spend"] is None else f"{token['spent']} of {token['spend']}",
        ]
        for token in result["tokens"]
    ]
    columns = ("id", "status", "note", "methods", "channels>", "expires", "rate", "spent")
    return [Table(columns, rows, empty="No tokens yet.", whole=("id",))]


def _token_revoked(result: Result) -> list[Block]:
    return [Line(f"✓ token {result['id']} is revoked", "good", whole=True)]


def _metrics(metrics: Result) -> list[Block]:
    return [Raw(metrics["text"])]


def _reloaded(result: Result) -> list[Block]:
    blocks: list[Block] = [
        Line(f"✓ {name} is changed", "good", whole=True) for name in result["applied"]
    ]
    blocks += [
        Line(f"! {name} changes when customerd is restarted", "warning", whole=True)
        for name in result["restart"]
    ]
    return blocks or [Line("✓ the configuration is read; nothing differs", "good")]


def _stopping(stopping: Result) -> list[Block]:
    return [Line(f"✓ customerd (pid {stopping['pid']}) is stopping", "good")]


def _anything(result: Result) -> list[Block]:
    return [Fields("", [(name, str(value)) for name, value in result.items()])]


_RECOVERIES: dict[str, Mood] = {
    "recovered": "good",
    "waiting": "warning",
    "closing": "warning",
    "suspect": "bad",
}


def _recover(result: Result) -> list[Block]:
    rows: list[list[Cell]] = [
        [
            (each["label"], "strong"),
            (each["status"], _RECOVERIES.get(each["status"], "")),
            "-" if each["index"] < 0 else str(each["index"]),
            each["customer_balance"]["text"],
        ]
        for each in result["recoveries"]
    ]
    table = Table(
        ("label", "recovery", "state>", "yours>"),
        rows,
        empty="No channel needs to be recovered.",
        whole=("yours>",),
    )
    notes = [each for each in result["recoveries"] if each["message"]]
    return [table, *(Line(f"! {each['label']}: {each['message']}", "warning") for each in notes)]


def _resume(result: Result) -> list[Block]:
    count = len(result["operations"])
    return [Line(f"{count} operations go on" if count else "No operation was held.")]


def _backup(result: Result) -> list[Block]:
    words = f"{result['channels']} channels in {result['file']}, {result['size']:,} bytes"
    return [Line(f"✓ {words}; the twelve words open it", "good")]


def _restore(result: Result) -> list[Block]:
    rows: list[list[Cell]] = [
        [
            (each["label"], "strong"),
            (each["status"], _STATUSES.get(each["status"], "")),
            each["chain_status"].replace("_", " "),
            str(each["index"]),
            ("the signer knows a newer state", "warning") if each["stale"] else "",
        ]
        for each in result["channels"]
    ]
    blocks: list[Block] = [
        Table(("label", "status", "on chain", "state>", ""), rows, empty="No channel in it."),
        Line(f"! written {duration(result['age'])} ago; customerctl recover is next", "warning"),
    ]
    blocks += [
        Line(f"! not in the backup: {channel}", "bad", whole=True) for channel in result["missing"]
    ]
    if result["held"]:
        words = f"! {result['held']} operations wait: customerctl operations, resume, cancel"
        blocks.append(Line(words, "warning"))
    return blocks


_SCREENS: dict[str, Callable[[Result], list[Block]]] = {
    "getinfo": _getinfo,
    "signer-status": _signer_status,
    "signer-pair": _signer_pair,
    "signer-address": _signer_address,
    "signer-forget": _signer_forget,
    "balance": _balance,
    "list": _list,
    "show": _show,
    "rename": _renamed,
    "operations": _operations,
    "operation": _operation,
    "cancel": _cancelled,
    "history": _history,
    "estimate": _estimate,
    "recover": _recover,
    "resume": _resume,
    "backup": _backup,
    "restore": _restore,
    "token-create": _token_created,
    "token-list": _token_list,
    "token-revoke": _token_revoked,
    "metrics": _metrics,
    "reload": _reloaded,
    "stop": _stopping,
}
