"""Shows the steps of an operation while it is waited for; only if that takes noticeably long."""

from __future__ import annotations

import time

from customerctl.later import Later
from customerctl.words import STEPS, clean, duration

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rich.console import RenderableType
    from rich.live import Live

PATIENCE = 0.3
"""Seconds before anything is drawn: a payment is done by then."""


class Progress:
    """Collects committed steps of one operation and draws them on the terminal of stderr."""

    def __init__(self, title: str, *, visible: bool) -> None:
        self._title = clean(title)
        self._began = time.monotonic()
        self._steps: list[tuple[str, str, float]] = []
        self._operation: dict[str, Any] | None = None
        self._early: list[dict[str, Any]] = []
        self._mark: tuple[str, str] | None = None
        self._live: Live | None = None
        self._later = Later(PATIENCE, self._begin) if visible else None

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def follow(self, operation: dict[str, Any]) -> None:
        """Say which operation it is; events that came before count as well."""
        self._operation = operation
        for step in operation["steps"]:
            self._enter(step["name"])
        for event in self._early:
            self._take(event)

    def notified(self, name: str, event: dict[str, Any]) -> None:
        """Take in a notification."""
        if name != "event" or event.get("topic") != "operation":
            return
        if self._operation is None:
            self._early.append(event)
        else:
            self._take(event)

    def stop(self, *, done: bool = False) -> None:
        """End with the last picture, or with none when a payment is done: one line says it.

        Further calls do nothing.
        """
        if self._later is None:
            return
        self._later.cancel()
        self._later = None
        self._mark = ("✓", "green") if done else ("·", "yellow")
        if self._live is not None:
            kind = self._operation["kind"] if self._operation else ""
            self._live.transient = done and kind in ("pay", "refund")
            self._live.stop()
            self._live = None

    def _take(self, event: dict[str, Any]) -> None:
        assert self._operation is not None
        if event["operation"] == self._operation["operation"] and event["kind"] == "step":
            step = event["details"].get("step")
            if step is not None:
                self._enter(step)

    def _enter(self, name: str) -> None:
        if self._steps and self._steps[-1][0] == name:
            return
        assert self._operation is not None
        words = STEPS.get((self._operation["kind"], name), clean(name))
        self._steps.append((name, words, time.monotonic()))

    def _begin(self) -> None:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._live = Live(
            console=console, get_renderable=self._draw, refresh_per_second=8, transient=False
        )
        self._live.start(refresh=True)

    def _draw(self) -> RenderableType:
        from itertools import pairwise

        from rich.spinner import Spinner
        from rich.table import Table
        from rich.text import Text

        now = time.monotonic()
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_column(no_wrap=True)
        grid.add_column(overflow="fold")
        grid.add_column(justify="right", no_wrap=True, style="dim")
        steps = list(self._steps)
        for (_, words, began), (_, _, ended) in pairwise(steps):
            grid.add_row(Text("✓", style="green"), words, duration(ended - began))
        words, began = steps[-1][1:] if steps else (self._title, self._began)
        mark: Text | Spinner
        if self._mark is not None:
            mark = Text(self._mark[0], style=self._mark[1])
        else:
            mark = Spinner("dots", style="yellow")
            mark.start_time = self._began
        grid.add_row(mark, words, duration(now - began))
        return grid
