"""Pairing over real TLS between real processes: once, for a while, with nobody in between."""

from __future__ import annotations

from tests.link.parts import Daemon, Signer


def test_a_signer_is_paired_in_one_step_and_attaches(daemon: Daemon, signer: Signer) -> None:
    """The line pairs a running signer, which comes to its daemon over TLS without a restart."""
    signer.service.start()
    signer.paired(daemon.pair_line())
    daemon.attached()
    status = daemon.rpc("signer-status")
    assert status["paired"]
    assert status["pairing_until"] is None
