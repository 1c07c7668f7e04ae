"""Who says yes to a proposal: fixed rules, or an HTTP service of the merchant's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol
from urllib.parse import urljoin, urlsplit

from zkchannels.wire.merchant import MAXIMUM_NOTE

if TYPE_CHECKING:
    import aiohttp

_SUCCESS = range(200, 300)
_SERVER_ERRORS = range(500, 600)


class Rejected(Exception):
    """The merchant says no; the message is the reason that the customer is told."""


class ApproverUnavailable(Exception):
    """Nobody can decide now; the customer should try again later."""


@dataclass(frozen=True, slots=True)
class Approval:
    """A yes; `resource` is where the service's note can be had after the payment."""

    resource: str | None = None


class Approver(Protocol):
    """Decides about proposals. Amounts are in units of the escrow.

    `establish`, `pay` and `refund` raise Rejected or ApproverUnavailable.
    """

    asks: ClassVar[bool]
    """Whether it asks somebody else."""

    async def establish(self, customer_deposit: int, merchant_deposit: int, note: str) -> Approval:
        """Decide about a new channel."""
        ...

    async def pay(self, amount: int, note: str) -> Approval:
        """Decide about a payment (`amount` is zero or more)."""
        ...

    async def refund(self, amount: int, note: str) -> Approval:
        """Decide about a refund of `amount`, more than zero."""
        ...

    async def service_note(self, resource: str) -> str:
        """Return what the customer is told after a payment; raises ApproverUnavailable."""
        ...

    async def finish(self, resource: str, *, success: bool) -> None:
        """Say that a resource has done its duty; raises ApproverUnavailable."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


@dataclass(frozen=True, slots=True)
class AutomaticApprover:
    """Says yes to every payment of something, and to refunds up to a limit."""

    refund_limit: int = 0
    asks: ClassVar[bool] = False

    async def establish(
        self,
        customer_deposit: int,  # noqa: ARG002  (the limits of the handlers bound all deposits)
        merchant_deposit: int,  # noqa: ARG002
        note: str,  # noqa: ARG002
    ) -> Approval:
        """Say yes."""
        return Approval()

    async def pay(self, amount: int, note: str) -> Approval:  # noqa: ARG002
        """Say yes to any payment of something; raises Rejected."""
        if amount <= 0:
            raise Rejected("a payment of nothing is refused")
        return Approval()

    async def refund(self, amount: int, note: str) -> Approval:  # noqa: ARG002
        """Say yes up to the limit; raises Rejected."""
        if amount > self.refund_limit:
            raise Rejected("this merchant does not give such refunds automatically")
        return Approval()

    async def service_note(self, resource: str) -> str:
        """Return nothing to say: no approval of this kind names a resource."""
        raise ApproverUnavailable(f"no service is configured to ask about {resource}")

    async def finish(self, resource: str, *, success: bool) -> None:  # noqa: ARG002
        """Raise ApproverUnavailable: whoever gave the resource is configured no more."""
        raise ApproverUnavailable(f"no service is configured to tell about {resource}")

    async def aclose(self) -> None:
        """Do nothing."""


class HttpApprover:
    """Asks `POST URL/establish|/pay|/refund`; any 2xx is a yes, else the body is the reason.

    The request's body is the customer's note. A `Location` header in a yes names a resource of the
    same origin: its `GET` gives the service note once the payment is made, and
    `DELETE ?success=true|false` says that it is over. `GET` may be repeated.
    """

    asks: ClassVar[bool] = True

    def __init__(self, url: str, *, timeout: float) -> None:
        self._url = url.rstrip("/") + "/"
        self._timeout = timeout
        self._client: aiohttp.ClientSession | None = None

    async def establish(self, customer_deposit: int, merchant_deposit: int, note: str) -> Approval:
        """Ask about a new channel; raises Rejected or ApproverUnavailable."""
        amounts = {"customer-amount": customer_deposit, "merchant-amount": merchant_deposit}
        return await self._ask("establish", amounts, note)

    async def pay(self, amount: int, note: str) -> Approval:
        """Ask about a payment; raises Rejected or ApproverUnavailable."""
        return await self._ask("pay", {"amount": amount}, note)

    async def refund(self, amount: int, note: str) -> Approval:
        """Ask about a refund; raises Rejected or ApproverUnavailable."""
        return await self._ask("refund", {"amount": amount}, note)

    async def service_note(self, resource: str) -> str:
        """Return the service note; empty where the service has none. Raises ApproverUnavailable."""
        status, body, _ = await self._request("GET", resource)
        if status in _SERVER_ERRORS:
            raise ApproverUnavailable(f"the approval service answered {status}")
        return body if status in _SUCCESS else ""

    async def finish(self, resource: str, *, success: bool) -> None:
        """Delete the resource; raises ApproverUnavailable."""
        query = {"success": "true" if success else "false"}
        status, _, _ = await self._request("DELETE", resource, query=query)
        if status in _SERVER_ERRORS:
            raise ApproverUnavailable(f"the approval service answered {status}")

    async def aclose(self) -> None:
        """Close the connections to the service."""
        if self._client is not None:
            await self._client.close()

    async def _ask(self, path: str, amounts: dict[str, int], note: str) -> Approval:
        query = {name: str(value) for name, value in amounts.items()}
        url = urljoin(self._url, path)
        status, body, location = await self._request("POST", url, query=query, body=note)
        if status in _SERVER_ERRORS:
            raise ApproverUnavailable(f"the approval service answered {status}")
        if status not in _SUCCESS:
            raise Rejected(body or "the merchant does not approve")
        return Approval(self._resource(url, location))

    def _resource(self, url: str, location: str | None) -> str | None:
        if not location:
            return None
        resource = urljoin(url, location)
        if urlsplit(resource)[:2] != urlsplit(self._url)[:2]:
            # Not followed elsewhere: the service is trusted, other hosts it may name are not.
            raise ApproverUnavailable("the approval service names a resource of another origin")
        return resource

    async def _request(
        self, method: str, url: str, *, query: dict[str, str] | None = None, body: str = ""
    ) -> tuple[int, str, str | None]:
        import aiohttp  # noqa: PLC0415  (only merchants with such a service need it)

        if self._client is None:
            self._client = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout))
        try:
            async with self._client.request(
                method,
                url,
                params=query,
                data=body.encode(),
                headers={"Content-Type": "text/plain; charset=utf-8"},
                allow_redirects=False,
            ) as response:
                text = await _read_bounded(response)
                return response.status, text, response.headers.get("Location")
        except (TimeoutError, aiohttp.ClientError) as error:
            raise ApproverUnavailable(f"the approval service: {type(error).__name__}") from error


async def _read_bounded(response: aiohttp.ClientResponse) -> str:
    data = bytearray()
    async for chunk in response.content.iter_any():
        data += chunk
        if len(data) >= MAXIMUM_NOTE:
            break
    # A cut through a character loses that character only.
    return bytes(data[:MAXIMUM_NOTE]).decode("utf-8", errors="ignore")
