"""An approval service for tests."""

from __future__ import annotations

from dataclasses import dataclass, field

from aiohttp import web


@dataclass
class Service:
    """An approval service that remembers what it was asked and answers what it is told to."""

    url: str = ""
    status: int = 200
    body: str = ""
    location: str | None = None
    note_status: int = 200
    asked: list[str] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        """Note method, path with query and body; answer as configured."""
        body = await request.text()
        self.asked.append(f"{request.method} {request.path_qs} {body}".strip())
        if request.method != "POST":
            return web.Response(status=self.note_status, text="your coffee is ready")
        headers = {} if self.location is None else {"Location": self.location}
        return web.Response(status=self.status, text=self.body, headers=headers)
