"""Both kinds of approver, the HTTP one against a real service."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from merchantd.approver import (
    ApproverUnavailable,
    AutomaticApprover,
    HttpApprover,
    Rejected,
)
from tests.merchantd.service import Service
from zkchannels.wire.merchant import MAXIMUM_NOTE


@pytest_asyncio.fixture
async def approver(service: Service) -> AsyncIterator[HttpApprover]:
    """An approver that asks the service."""
    asking = HttpApprover(service.url, timeout=5.0)
    yield asking
    await asking.aclose()


async def test_automatic_approves_payments_and_small_refunds() -> None:
    """Automatic approval takes payments of something, and gives refunds up to its limit only."""
    approver = AutomaticApprover(refund_limit=10)
    await approver.pay(1, "")
    await approver.refund(10, "")
    with pytest.raises(Rejected):
        await approver.pay(0, "")
    with pytest.raises(Rejected):
        await approver.refund(11, "")
    with pytest.raises(Rejected):
        await AutomaticApprover().refund(1, "")


async def test_http_asks_with_amounts_and_note(service: Service, approver: HttpApprover) -> None:
    """Each kind of proposal goes to its own address, absolute amounts in the query."""
    await approver.establish(5, 6, "hello")
    await approver.pay(7, "two coffees")
    await approver.refund(8, "")
    assert service.asked == [
        "POST /shop/establish?customer-amount=5&merchant-amount=6 hello",
        "POST /shop/pay?amount=7 two coffees",
        "POST /shop/refund?amount=8",
    ]


async def test_http_refusal_gives_the_reason(service: Service, approver: HttpApprover) -> None:
    """The body of a refusal becomes the customer's reason, cut at the length of a note."""
    service.status, service.body = 403, "sold out"
    with pytest.raises(Rejected, match="sold out"):
        await approver.pay(1, "")
    service.body = "x" * (MAXIMUM_NOTE + 100)
    with pytest.raises(Rejected) as caught:
        await approver.pay(1, "")
    assert len(str(caught.value)) == MAXIMUM_NOTE


async def test_http_note_comes_from_the_resource(service: Service, approver: HttpApprover) -> None:
    """A Location names the resource of the note; it is read, and deleted with the outcome."""
    service.location = "/orders/17"
    approval = await approver.pay(1, "")
    assert approval.resource is not None
    assert await approver.service_note(approval.resource) == "your coffee is ready"
    await approver.finish(approval.resource, success=True)
    assert service.asked[1:] == ["GET /orders/17", "DELETE /orders/17?success=true"]


async def test_http_resource_of_another_origin_is_refused(
    service: Service, approver: HttpApprover
) -> None:
    """A resource on another host is never asked for."""
    service.location = "http://169.254.169.254/secret"
    with pytest.raises(ApproverUnavailable):
        await approver.pay(1, "")


async def test_http_trouble_is_no_refusal(service: Service, approver: HttpApprover) -> None:
    """Errors and absence of the service mean "later", never "no" and never "yes"."""
    service.status = 500
    with pytest.raises(ApproverUnavailable):
        await approver.pay(1, "")
    service.note_status = 503
    with pytest.raises(ApproverUnavailable):
        await approver.service_note(service.url + "/orders/1")
    with socket.socket() as silent:  # bound, so that nobody else answers there
        silent.bind(("127.0.0.1", 0))
        nobody = HttpApprover(f"http://127.0.0.1:{silent.getsockname()[1]}", timeout=5.0)
        with pytest.raises(ApproverUnavailable):
            await nobody.pay(1, "")
        await nobody.aclose()
