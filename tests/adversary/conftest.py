"""Merchants for malicious customers, as merchantd's own tests have them."""

from __future__ import annotations

from tests.merchantd.conftest import service, site

__all__ = ["service", "site"]
