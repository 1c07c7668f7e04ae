"""Both backends: strict decoding, the traps of group libraries, and agreement with a third."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from py_ecc.bls.hash_to_curve import hash_to_G1
from py_ecc.fields import optimized_bls12_381_FQ as Fq
from py_ecc.fields import optimized_bls12_381_FQ2 as Fq2
from py_ecc.optimized_bls12_381 import G1, G2, add, multiply, normalize, pairing

from zkchannels.abacus import CLOSE, InvalidEncoding, R, SecretKey, use_backend
from zkchannels.abacus._backend import Backend, Point, current_backend, load_backend
from zkchannels.abacus._tables import BucketSum, FixedBase, combine
from zkchannels.abacus.eip2537 import P, compress_g1, compress_g2, expand_g1, expand_g2
from zkchannels.abacus.generators import HASH_TAG
from zkchannels.abacus.keys import points_of

PYBLST, ARKWORKS = load_backend("pyblst"), load_backend("arkworks")
BACKENDS = (PYBLST, ARKWORKS)
FROZEN: dict[str, Any] = json.loads(Path(__file__).with_name("vectors.json").read_text())
EDGES = [0, 1, 2, 127, 128, 129, 255, 256, 2**64 - 1, 2**64, 2**130 - 1, 2**130, R // 2, R - 1]
scalars = st.one_of(st.sampled_from(EDGES), st.integers(0, R - 1))


def words(data: bytes, length: int) -> list[int]:
    """Return the big-endian integers of equal parts of some bytes."""
    return [int.from_bytes(data[at : at + length], "big") for at in range(0, len(data), length)]


def third_g1(data: bytes) -> Any:
    """Return a compressed G1 point as the third library's."""
    x, y = words(expand_g1(data), 64)
    return Fq(x), Fq(y), Fq(1)


def third_g2(data: bytes) -> Any:
    """Return a compressed G2 point as the third library's."""
    x0, x1, y0, y1 = words(expand_g2(data), 64)
    return Fq2([x0, x1]), Fq2([y0, y1]), Fq2([1, 0])


def curve_x(start: int) -> int:
    """Return an x at or after the start with a point on the curve of G1."""
    return next(x for x in range(start, P) if pow(x**3 + 4, (P - 1) // 2, P) == 1)


def g1_form(x: int, flags: int = 0x80) -> bytes:
    """Return x as a compressed G1 point with the given flags, whether or not that is valid."""
    data = bytearray(x.to_bytes(48, "big"))
    data[0] |= flags
    return bytes(data)


def g2_form(c0: int, c1: int, flags: int = 0x80) -> bytes:
    """Return x as a compressed G2 point with the given flags, whether or not that is valid."""
    return g1_form(c1, flags) + c0.to_bytes(48, "big")


def small_x_in_g1() -> tuple[Point, int]:
    """Return a point of G1 whose x + P still fits beside the flags."""
    backend = PYBLST
    point = backend.g1
    while True:
        x = words(backend.encode_g1(point), 48)[0] & (2**381 - 1)
        if x + P < 2**381:
            return point, x
        point = point + backend.g1


_POINT, _X = small_x_in_g1()
BAD_G1 = {
    "empty": b"",
    "one byte short": PYBLST.encode_g1(PYBLST.g1)[:-1],
    "one byte long": PYBLST.encode_g1(PYBLST.g1) + b"\0",
    "uncompressed length": bytes(96),
    "zero": bytes(48),
    "infinity": b"\xc0" + bytes(47),
    "infinity with sign": b"\xe0" + bytes(47),
    "infinity with a bit": b"\xc0" + bytes(46) + b"\1",
    "all ones": b"\xff" * 48,
    "infinity without compression": b"\x40" + bytes(47),
    "no compression flag": bytes([PYBLST.encode_g1(_POINT)[0] & 0x7F])
    + PYBLST.encode_g1(_POINT)[1:],
    "x plus p": g1_form(_X + P, PYBLST.encode_g1(_POINT)[0] & 0xE0),
    "x equal to p": g1_form(P),
    "x of all ones": g1_form(2**381 - 1),
    "off the curve": g1_form(
        next(x for x in range(1, 99) if pow(x**3 + 4, (P - 1) // 2, P) == P - 1)
    ),
    "outside the subgroup": g1_form(curve_x(1)),
    "outside the subgroup, negated": g1_form(curve_x(1), 0xA0),
    "x zero, of order three": g1_form(0),
}
_G2 = PYBLST.encode_g2(PYBLST.g2)
_OUTSIDE_G2 = next(
    form
    for form in (g2_form(x, 0) for x in range(1, 99))
    if pow((words(form, 48)[1] ** 3 + 4) ** 2 + 16, (P - 1) // 2, P) == 1
)
BAD_G2 = {
    "empty": b"",
    "a point of G1": PYBLST.encode_g1(PYBLST.g1),
    "one byte short": _G2[:-1],
    "one byte long": _G2 + b"\0",
    "zero": bytes(96),
    "infinity": b"\xc0" + bytes(95),
    "infinity with sign": b"\xe0" + bytes(95),
    "infinity with a bit": b"\xc0" + bytes(94) + b"\1",
    "all ones": b"\xff" * 96,
    "no compression flag": bytes([_G2[0] & 0x7F]) + _G2[1:],
    "c1 equal to p": g2_form(1, P),
    "c0 equal to p": g2_form(P, 1),
    "c0 plus p": _G2[:48] + (words(_G2, 48)[1] + P).to_bytes(48, "big"),
    "flags on the second half": _G2[:48] + bytes([_G2[48] | 0x80]) + _G2[49:],
    "outside the subgroup": _OUTSIDE_G2,
}


@pytest.mark.parametrize("data", BAD_G1.values(), ids=BAD_G1)
def test_bad_g1_points_are_refused(backend: Backend, data: bytes) -> None:
    """Every malformed, foreign or identity encoding in G1 is refused by each backend."""
    with pytest.raises(InvalidEncoding):
        backend.decode_g1(data)


@pytest.mark.parametrize("data", BAD_G2.values(), ids=BAD_G2)
def test_bad_g2_points_are_refused(backend: Backend, data: bytes) -> None:
    """Every malformed, foreign or identity encoding in G2 is refused by each backend."""
    with pytest.raises(InvalidEncoding):
        backend.decode_g2(data)


def test_the_bad_points_are_bad_for_the_stated_reason() -> None:
    """Points outside the subgroup are on the curve, and the others would be but for their form."""
    x, y = words(expand_g1(BAD_G1["outside the subgroup"]), 64)
    assert (y * y - x**3 - 4) % P == 0
    assert compress_g2(expand_g2(_OUTSIDE_G2)) == _OUTSIDE_G2
    assert g1_form(_X, PYBLST.encode_g1(_POINT)[0] & 0xE0) == PYBLST.encode_g1(_POINT)


def test_a_library_that_repairs_its_input_is_not_trusted() -> None:
    """Should a library accept a second form of a point, encoding it again gives that away."""

    bad_g1, bad_g2 = BAD_G1["x plus p"], BAD_G2["c0 plus p"]
    repaired = {bad_g1: PYBLST.encode_g1(_POINT), bad_g2: _G2}

    class Lax(type(PYBLST)):  # type: ignore[misc]
        def _decompress_g1(self, data: bytes) -> Point:
            return super()._decompress_g1(repaired.get(data, data))

        def _decompress_g2(self, data: bytes) -> Point:
            return super()._decompress_g2(repaired.get(data, data))

    lax = Lax()
    with pytest.raises(InvalidEncoding, match="canonical"):
        lax.decode_g1(bad_g1)
    with pytest.raises(InvalidEncoding, match="canonical"):
        lax.decode_g2(bad_g2)


def decoded(backend: Backend, data: bytes) -> bool:
    """Tell whether a backend takes bytes for a G1 or G2 point."""
    try:
        if len(data) == 96:
            backend.decode_g2(data)
        else:
            backend.decode_g1(data)
    except InvalidEncoding:
        return False
    return True


@settings(max_examples=150, deadline=None)
@given(
    flags=st.sampled_from([0, 0x20, 0x40, 0x60, 0x80, 0xA0, 0xC0, 0xE0]),
    x=st.one_of(st.integers(0, 40), st.integers(P - 3, P + 40), st.integers(0, 2**381 - 1)),
    group=st.sampled_from([1, 2]),
)
def test_backends_agree_on_any_input(flags: int, x: int, group: int) -> None:
    """Whatever the bytes, both backends refuse or both accept."""
    data = g1_form(x, flags) if group == 1 else g2_form(x, 0, flags)
    assert decoded(PYBLST, data) == decoded(ARKWORKS, data)


@settings(max_examples=25, deadline=None)
@given(scalar=scalars, other=scalars)
def test_backends_agree_on_arithmetic(scalar: int, other: int) -> None:
    """Multiples, sums, negations and encodings are the same bytes in both backends."""
    results = []
    for backend in BACKENDS:
        g1 = backend.multiply_g1(backend.g1, scalar)
        g2 = backend.multiply_g2(backend.g2, scalar)
        results.append(
            (
                backend.encode_g1(g1),
                backend.encode_g1(g1 + -backend.multiply_secret(backend.g1, other)),
                backend.encode_g2(g2 + -backend.multiply_g2(backend.g2, other)),
            )
        )
    assert results[0] == results[1]


@settings(max_examples=25, deadline=None)
@given(values=st.lists(scalars, min_size=3, max_size=3))
def test_tables_and_buckets_multiply_as_the_library_does(values: list[int]) -> None:
    """Fixed-base tables and the bucket sum give what plain multiplications add up to."""
    for backend, (bases, tables, buckets) in zip(BACKENDS, TABLES, strict=True):
        products = map(backend.multiply_g1, bases, values)
        expected = backend.encode_g1(sum(products, start=backend.zero_g1))
        assert backend.encode_g1(combine(*zip(tables, values, strict=True))) == expected
        assert backend.encode_g1(buckets.combine(values)) == expected


def _tables(backend: Backend) -> tuple[list[Point], list[FixedBase], BucketSum]:
    bases = [backend.multiply_g1(backend.g1, factor) for factor in (1, 5, R - 3)]
    tables = [FixedBase(base, backend.zero_g1) for base in bases]
    return bases, tables, BucketSum(bases, backend.zero_g1)


TABLES = [_tables(backend) for backend in BACKENDS]


@pytest.mark.parametrize("scalar", [-1, R, R + 1, 2**256])
def test_scalars_are_never_reduced(backend: Backend, scalar: int) -> None:
    """Every multiplication refuses a scalar outside [0, R): libraries would reduce it silently."""
    _, tables, buckets = _tables(backend)
    for attempt in (
        lambda: backend.multiply_g1(backend.g1, scalar),
        lambda: backend.multiply_g2(backend.g2, scalar),
        lambda: backend.multiply_secret(backend.g1, scalar),
        lambda: combine((tables[0], scalar)),
        lambda: buckets.combine([1, 2, scalar]),
    ):
        with pytest.raises(InvalidEncoding):
            attempt()


@pytest.mark.parametrize("values", [[], [1], [1, 2], [1, 2, 3, 4]])
def test_a_sum_over_bases_needs_a_scalar_for_each(backend: Backend, values: list[int]) -> None:
    """Unequal numbers of bases and scalars raise instead of being cut to the shorter one."""
    with pytest.raises(ValueError, match="3 bases need as many scalars"):
        _tables(backend)[2].combine(values)


def test_the_pairing_equation_is_an_equation(backend: Backend) -> None:
    """It has two sides always, is bilinear, and treats the identity as one, not as true."""
    g1, g2 = backend.g1, backend.g2
    double_g1, double_g2 = g1 + g1, g2 + g2
    equal = backend.pairings_equal
    assert equal(double_g1, g2, g1, double_g2)
    assert not equal(double_g1, g2, g1, g2)
    assert not equal(backend.zero_g1, g2, g1, g2)
    assert not equal(g1, g2, backend.zero_g1, g2)
    assert not equal(g1, backend.zero_g2, g1, g2)
    assert not equal(g1, g2, g1, backend.zero_g2)
    assert equal(backend.zero_g1, g2, g1, backend.zero_g2)
    assert equal(backend.zero_g1, g2, backend.zero_g1, double_g2)


def test_a_secret_multiplication_is_never_the_same_twice_inside() -> None:
    """The backend that is not constant-time splits a secret scalar into fresh uniform shares."""
    seen = []

    class Watched(type(ARKWORKS)):  # type: ignore[misc]
        def multiply_g1(self, point: Point, scalar: int) -> Point:
            seen.append(scalar)
            return super().multiply_g1(point, scalar)

    watched = Watched()
    for _ in range(3):
        assert watched.encode_g1(watched.multiply_secret(watched.g1, 5)) == (
            ARKWORKS.encode_g1(ARKWORKS.multiply_g1(ARKWORKS.g1, 5))
        )
    assert len(seen) == len(set(seen)) == 6
    assert 5 not in seen


def test_backends_are_chosen_by_name_and_for_a_block() -> None:
    """The default is pyblst; a choice ends with its block, and a key stays with its backend."""
    assert current_backend() is PYBLST
    with use_backend("arkworks") as chosen:
        assert chosen is current_backend() is ARKWORKS
        key = SecretKey.generate()
    assert current_backend() is PYBLST
    assert points_of(key.public).backend is ARKWORKS
    with pytest.raises(ValueError, match="no backend is named 'other'"), use_backend("other"):
        pass


@settings(max_examples=10, deadline=None)
@given(scalar=st.integers(1, R - 1))
def test_points_in_the_form_of_the_precompiles(scalar: int) -> None:
    """Compressed and EIP-2537 forms lead to each other, and equal the third library's."""
    g1 = PYBLST.encode_g1(PYBLST.multiply_g1(PYBLST.g1, scalar))
    assert third_g1(g1)[:2] == normalize(multiply(G1, scalar))
    assert compress_g1(expand_g1(g1)) == g1
    g2 = PYBLST.encode_g2(PYBLST.multiply_g2(PYBLST.g2, scalar))
    assert third_g2(g2)[:2] == normalize(multiply(G2, scalar))
    assert compress_g2(expand_g2(g2)) == g2


@pytest.mark.parametrize("data", [BAD_G1["off the curve"], b"", bytes(48), bytes(47)])
def test_what_is_no_point_is_not_expanded(data: bytes) -> None:
    """Bytes without a point on the curve have no affine form."""
    with pytest.raises(InvalidEncoding):
        expand_g1(data)


def test_a_third_library_agrees_on_points() -> None:
    """Generators, multiples and the hash to the curve equal those of py_ecc."""
    scalar = int(FROZEN["channel_id"], 16)
    for backend in BACKENDS:
        product = backend.encode_g1(backend.multiply_g1(backend.g1, scalar))
        assert third_g1(product)[:2] == normalize(multiply(G1, scalar))
        product = backend.encode_g2(backend.multiply_g2(backend.g2, scalar))
        assert third_g2(product)[:2] == normalize(multiply(G2, scalar))
    l0 = bytes.fromhex(FROZEN["generators"])[48:96]
    hashed = normalize(hash_to_G1(b"lock/blinding", HASH_TAG, hashlib.sha256))
    assert third_g1(l0)[:2] == hashed


def test_a_third_library_accepts_the_closing_authorization() -> None:
    """The frozen closing authorization satisfies the contract's equation in py_ecc."""
    case = FROZEN["cases"]["payment"]
    signature = bytes.fromhex(case["closing_authorization"])
    public = bytes.fromhex(FROZEN["public_key"])
    x2, *y2 = (third_g2(public[at : at + 96]) for at in range(240, 816, 96))
    amount = case["amount"]
    messages = (
        int(FROZEN["channel_id"], 16),
        CLOSE,
        int(FROZEN["locks"][1], 16),
        case["customer_balance"] - amount,
        case["merchant_balance"] + amount,
    )
    total = x2
    for element, message in zip(y2, messages, strict=True):
        total = add(total, multiply(element, message))
    sigma1, sigma2 = (third_g1(compress_g1(part)) for part in (signature[:128], signature[128:]))
    assert pairing(total, sigma1) == pairing(G2, sigma2)
