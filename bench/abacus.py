"""What a pay proof costs beside the sum of its group operations, which no program can beat.

The operations are counted by a backend that counts, then timed one by one in the same run. Run it
as `python bench/abacus.py`, with `--json` for a program to read.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from zkchannels.abacus import (
    ChannelSecrets,
    PublicKey,
    SecretKey,
    check_blinded,
    context,
    prove_pay,
    use_backend,
    verify_pay,
)
from zkchannels.abacus._backend import Backend, Point, load_backend

TARGET = 1.3
ROUNDS = 20
CONTEXT = context(31337, b"\x11" * 20, b"\x44" * 16)
COUNTS: Counter[str] = Counter()


class _Counted:
    """A point that counts what is done with it."""

    group = ""

    def __init__(self, point: Any) -> None:
        self.point = point

    def __add__(self, other: Self) -> Self:
        COUNTS[f"{self.group} addition"] += 1
        return type(self)(self.point + other.point)

    def __neg__(self) -> Self:
        COUNTS[f"{self.group} negation"] += 1
        return type(self)(-self.point)


class _CountedG1(_Counted):
    group = "G1"


class _CountedG2(_Counted):
    group = "G2"


class CountingBackend(Backend):
    """A backend that does nothing itself but count."""

    def __init__(self, inner: Backend) -> None:
        self.inner = inner
        self.name = f"counting {inner.name}"
        self.g1, self.zero_g1 = _CountedG1(inner.g1), _CountedG1(inner.zero_g1)
        self.g2, self.zero_g2 = _CountedG2(inner.g2), _CountedG2(inner.zero_g2)

    def decode_g1(self, data: bytes) -> Point:
        COUNTS["G1 decoding"] += 1
        return _CountedG1(self.inner.decode_g1(data))

    def decode_g2(self, data: bytes) -> Point:
        COUNTS["G2 decoding"] += 1
        return _CountedG2(self.inner.decode_g2(data))

    def encode_g1(self, point: Any) -> bytes:
        COUNTS["G1 encoding"] += 1
        return self.inner.encode_g1(point.point)

    def encode_g2(self, point: Any) -> bytes:
        COUNTS["G2 encoding"] += 1
        return self.inner.encode_g2(point.point)

    def multiply_g1(self, point: Any, scalar: int) -> Point:
        COUNTS["G1 multiplication"] += 1
        return _CountedG1(self.inner.multiply_g1(point.point, scalar))

    def multiply_g2(self, point: Any, scalar: int) -> Point:
        COUNTS["G2 multiplication"] += 1
        return _CountedG2(self.inner.multiply_g2(point.point, scalar))

    def multiply_secret(self, point: Any, scalar: int) -> Point:
        COUNTS["G1 secret multiplication"] += 1
        return _CountedG1(self.inner.multiply_secret(point.point, scalar))

    def hash_to_g1(self, message: bytes, tag: bytes) -> Point:
        return _CountedG1(self.inner.hash_to_g1(message, tag))

    def pairings_equal(self, a: Any, b: Any, c: Any, d: Any) -> bool:
        COUNTS["pairing equation"] += 1
        return self.inner.pairings_equal(a.point, b.point, c.point, d.point)

    def _decompress_g1(self, data: bytes) -> Point:
        raise NotImplementedError("decode_g1 counts instead")

    def _decompress_g2(self, data: bytes) -> Point:
        raise NotImplementedError("decode_g2 counts instead")


@dataclass(frozen=True)
class Payment:
    """One payment, ready to be proven and verified again and again."""

    prove: Callable[[], bytes]
    verify_as_owner: Callable[[], object]
    verify_in_public: Callable[[], object]


def prepare() -> Payment:
    """Open a channel on the current backend and build all tables."""
    key = SecretKey.generate()
    public: PublicKey = key.public
    secrets = ChannelSecrets(bytes(32), 7)
    old = secrets.state(0, 0, 1_000_000, 250_000)
    new = secrets.state(1, 0, 1_000_000 - 1234, 250_000 + 1234)
    token = key.sign(old)
    # As in life: a token is checked when it arrives, and believed when it is spent.
    check_blinded(public, token, old, 0)
    blindings = secrets.pay_blindings(1, 0, 1234)

    def prove() -> bytes:
        return prove_pay(public, CONTEXT, old, token, 0, new, 1234, blindings)

    proof = prove()
    payment = Payment(
        prove=prove,
        verify_as_owner=lambda: verify_pay(key, CONTEXT, old.nonce, 1234, proof),
        verify_in_public=lambda: verify_pay(public, CONTEXT, old.nonce, 1234, proof),
    )
    payment.verify_as_owner()
    payment.verify_in_public()
    return payment


def count(work: Callable[[], object]) -> Counter[str]:
    """Return how many group operations a piece of work takes."""
    COUNTS.clear()
    work()
    return Counter(COUNTS)


def single_operations(backend: Backend) -> dict[str, tuple[Callable[[], object], int]]:
    """Return each group operation on ordinary values, with how often to repeat it."""
    scalar = int.from_bytes(b"\x5a" * 32, "big")
    a, b = (backend.multiply_g1(backend.g1, scalar + i) for i in (1, 2))
    c, d = (backend.multiply_g2(backend.g2, scalar + i) for i in (1, 2))
    g1_bytes, g2_bytes = backend.encode_g1(a), backend.encode_g2(c)
    return {
        "G1 addition": (lambda: a + b, 2000),
        "G2 addition": (lambda: c + d, 1000),
        "G1 negation": (lambda: -a, 2000),
        "G2 negation": (lambda: -c, 2000),
        "G1 encoding": (lambda: backend.encode_g1(a), 500),
        "G2 encoding": (lambda: backend.encode_g2(c), 500),
        "G1 decoding": (lambda: backend.decode_g1(g1_bytes), 40),
        "G2 decoding": (lambda: backend.decode_g2(g2_bytes), 40),
        "G1 multiplication": (lambda: backend.multiply_g1(a, scalar), 40),
        "G2 multiplication": (lambda: backend.multiply_g2(c, scalar), 40),
        "G1 secret multiplication": (lambda: backend.multiply_secret(a, scalar), 40),
        "pairing equation": (lambda: backend.pairings_equal(a, c, b, d), 6),
    }


def seconds(work: Callable[[], object], repeat: int) -> float:
    """Return the CPU time of one repetition, without the loop that repeats it."""
    turns = range(repeat)
    begun = time.process_time()
    for _ in turns:
        work()
    worked = time.process_time()
    for _ in turns:
        _nothing()
    return max(0.0, (worked - begun) - (time.process_time() - worked)) / repeat


def _nothing() -> None:
    return None


def measure(name: str) -> dict[str, Any]:
    """Measure one backend: operations and proofs in turns, so that noise meets them alike."""
    with use_backend(CountingBackend(load_backend(name))):
        counted = {field: count(work) for field, work in vars(prepare()).items()}
    backend = load_backend(name)
    with use_backend(backend):
        payment = prepare()
    operations = single_operations(backend)
    single: dict[str, list[float]] = {operation: [] for operation in operations}
    whole: dict[str, list[float]] = {field: [] for field in counted}
    for _ in range(ROUNDS):
        for operation, (work, repeat) in operations.items():
            single[operation].append(seconds(work, repeat))
        for field, times in whole.items():
            times.append(seconds(getattr(payment, field), 12))
    # The best of many rounds is what the machine can do; the rest is other programs' work.
    cost = {operation: min(times) for operation, times in single.items()}
    best = {field: min(times) for field, times in whole.items()}
    return {
        "backend": name,
        "operations_us": {operation: value * 1e6 for operation, value in cost.items()},
        "results": [
            {
                "name": field,
                "milliseconds": best[field] * 1e3,
                "operations_milliseconds": _limit(counted[field], cost) * 1e3,
                "ratio": best[field] / _limit(counted[field], cost),
                "operations": dict(counted[field]),
            }
            for field in whole
        ],
    }


def _limit(counted: Counter[str], cost: dict[str, float]) -> float:
    return sum(number * cost[operation] for operation, number in counted.items())


def report(measured: dict[str, Any]) -> None:
    """Print one backend's figures for a reader."""
    print(f"{measured['backend']}: CPU time, best of {ROUNDS} rounds")
    for result in measured["results"]:
        verdict = "within" if result["ratio"] <= TARGET else "ABOVE"
        print(
            f"  {result['name'].replace('_', ' '):<17}{result['milliseconds']:6.2f} ms,"
            f" its group operations {result['operations_milliseconds']:5.2f} ms,"
            f" ratio {result['ratio']:.2f} ({verdict} the target of {TARGET})"
        )
        counted = sorted(result["operations"].items())
        print("    " + ", ".join(f"{number} x {operation}" for operation, number in counted))
    costs = measured["operations_us"].items()
    print("  single: " + ", ".join(f"{operation} {cost:.2f} us" for operation, cost in costs))


def main(arguments: list[str] | None = None) -> int:
    """Measure the chosen backends and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print figures for a program")
    parser.add_argument(
        "--backend",
        choices=["pyblst", "arkworks", "both"],
        default="pyblst",
        help="what to measure",
    )
    options = parser.parse_args(arguments)
    names = ["pyblst", "arkworks"] if options.backend == "both" else [options.backend]
    measured = [measure(name) for name in names]
    if options.json:
        print(json.dumps({"target": TARGET, "measured": measured}, indent=1))
        return 0
    for one in measured:
        report(one)
    return 0


if __name__ == "__main__":
    sys.exit(main())
