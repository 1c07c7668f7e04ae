"""A whole payment between real processes on loopback, beside the cryptography it contains.

`python bench/payment.py [--json] [--payments N]`: PostgreSQL with durable settings, an EVM chain,
merchantd, customerd and customersigner as separate processes; payments one after the other over
one connection to the owner socket. The comparison is the same payment's cryptography in one
process. Both take turns, so that a shared machine which is slow for a while is slow for both.
"""

from __future__ import annotations

import argparse
import json
import platform
import secrets
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from zkchannels.abacus import (
    ChannelSecrets,
    PublicKey,
    SecretKey,
    check_blinded,
    closing_authorization,
    context,
    prove_pay,
    verify_lock_opening,
    verify_pay,
)
from zkchannels.devnet.network import Network
from zkchannels.jsonrpc.client import BlockingClient
from zkchannels.jsonrpc.errors import RpcError

TARGET_MS = 25.0
WARM_UP = 20
TURN = 25
SETTLING = 2


@contextmanager
def paying() -> Iterator[Callable[[], None]]:
    """Yield what makes one payment between real processes."""
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as directory,
        Network(Path(directory), merchants=("coffee",)) as network,
        BlockingClient(str(network.socket)) as client,
    ):
        address = network.merchants["coffee"].address
        operation = client.call(
            "establish", {"merchant": address, "deposit": "1 ETH", "label": "b", "wait": False}
        )["operation"]
        while True:
            network.chain.mine()
            try:
                client.call("wait", {"operation": operation, "timeout": 0.2})
                break
            except RpcError:
                continue
        yield lambda: client.call("pay", {"label": "b", "amount": 1000})


def computing() -> Callable[[], None]:
    """Return what does one payment's cryptography, both sides in this process."""
    merchant = SecretKey.generate()
    key = PublicKey.from_bytes(merchant.public.to_bytes())
    channel = ChannelSecrets(secrets.token_bytes(32), 12345)
    escrow = secrets.token_bytes(20)
    old = channel.state(0, 0, 10**9, 0)
    token, blinding = merchant.sign(old), 0
    index = 0

    def compute() -> None:
        nonlocal old, token, blinding, index
        index += 1
        new = channel.state(index, 0, old.customer_balance - 1000, old.merchant_balance + 1000)
        blindings = channel.pay_blindings(index, 0, 1000)
        where = context(31337, escrow, secrets.token_bytes(16))
        proof = prove_pay(key, where, old, token, blinding, new, 1000, blindings)
        commitments = verify_pay(merchant, where, old.nonce, 1000, proof)
        answer = merchant.blind_sign(commitments.close)
        closing_authorization(key, answer, blindings.close, new.close_state())
        assert verify_lock_opening(commitments.lock, blindings.lock, old.lock)
        token, blinding = merchant.blind_sign(commitments.state), blindings.state
        check_blinded(key, token, new, blinding)
        old = new

    return compute


def timed(work: Callable[[], None], count: int) -> list[float]:
    """Return the milliseconds of each of `count` repetitions, after a few that are not counted."""
    times = []
    for _ in range(SETTLING + count):
        began = time.perf_counter()
        work()
        times.append((time.perf_counter() - began) * 1000)
    return times[SETTLING:]


def measure(count: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of whole payments, and of their cryptography alone."""
    compute, whole, inner = computing(), [], []
    with paying() as pay:
        timed(pay, WARM_UP)
        timed(compute, WARM_UP)
        while len(whole) < count:
            turn = min(TURN, count - len(whole))
            whole += timed(pay, turn)
            inner += timed(compute, turn)
    return whole, inner


def main() -> int:
    """Measure, print, and return 1 when the target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--payments", type=int, default=300)
    options = parser.parse_args()
    whole, inner = measure(options.payments)
    p50, core = statistics.median(whole), statistics.median(inner)
    result = {
        "payment_ms": {"p50": p50, "p99": sorted(whole)[int(len(whole) * 0.99)], "min": min(whole)},
        "cryptography_ms": {"p50": core, "min": min(inner)},
        "ratio": p50 / core,
        "payments_per_second": 1000 / statistics.mean(whole),
        "target_ms": TARGET_MS,
        "python": platform.python_version(),
    }
    if options.json:
        print(json.dumps(result))
    else:
        for name, value in result.items():
            print(name, value)
    return 0 if p50 <= TARGET_MS else 1


if __name__ == "__main__":
    sys.exit(main())
