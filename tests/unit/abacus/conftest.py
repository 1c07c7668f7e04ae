"""Keys and verifiers shared by the tests of the cryptography."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from zkchannels.abacus import SecretKey, use_backend
from zkchannels.abacus._backend import Backend

from .support import Customer, Tokened, Verifier

CUSTOMER_BALANCE = 1000
MERCHANT_BALANCE = 500


@pytest.fixture(scope="session")
def merchant() -> SecretKey:
    """Return a merchant's key on the default backend."""
    return SecretKey.generate()


@pytest.fixture(params=["public", "owner"])
def verifier(request: pytest.FixtureRequest, merchant: SecretKey) -> Verifier:
    """Return the key to verify with, in each of the two modes."""
    return merchant if request.param == "owner" else merchant.public


@pytest.fixture(scope="session")
def opened(merchant: SecretKey) -> Tokened:
    """Return the first state of a channel with 1,000 for the customer, 500 for the merchant."""
    return Customer(merchant).establish(CUSTOMER_BALANCE, MERCHANT_BALANCE)


@pytest.fixture
def customer(merchant: SecretKey) -> Customer:
    """Return the customer of the opened channel."""
    return Customer(merchant)


@pytest.fixture(params=["pyblst", "arkworks"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Choose each backend for keys that are made in the test."""
    with use_backend(request.param) as chosen:
        yield chosen
