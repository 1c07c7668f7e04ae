"""Macaroons: restricted by anybody, widened by nobody, and written as others write them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zkchannels.macaroon import LONGEST, MOST_CAVEATS, Macaroon, MacaroonError

KEY = b"k" * 32
NAME = b"name"


def minted(*caveats: str) -> Macaroon:
    """A macaroon with these caveats."""
    return Macaroon.mint(KEY, NAME, caveats)


def test_the_signatures_are_those_of_libmacaroons() -> None:
    """The example in libmacaroons' README has the same signatures here."""
    key = b"this is our super secret key; only we should know it"
    macaroon = Macaroon.mint(key, b"we used our secret key")
    plain = "e3d9e02908526c4c0039ae15114115d97fdd68bf2ba379b342aaf0f617d0552f"
    assert macaroon.signature.hex() == plain
    restricted = macaroon.restricted("test = caveat")
    with_caveat = "197bac7a044af33332865b9266e26d493bdd668a660e44d88ce1a998c23dbd67"
    assert restricted.signature.hex() == with_caveat


def test_the_binary_form_is_version_2() -> None:
    """Version, location, identifier, caveats, signature: each with its kind and its length."""
    text = minted("a" * 200).encode()
    assert base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) == (
        b"\x02\x01\x09customerd\x02\x04name\x00"
        b"\x02\xc8\x01" + b"a" * 200 + b"\x00\x00\x06\x20" + minted("a" * 200).signature
    )


@given(st.lists(st.text(max_size=300), max_size=8))
def test_what_is_written_is_read_back(caveats: list[str]) -> None:
    """Any caveats survive, and the result is valid."""
    macaroon = minted(*(caveat.encode(errors="replace").decode() for caveat in caveats))
    read = Macaroon.decode(macaroon.encode())
    assert (read.identifier, read.caveats) == (NAME, macaroon.caveats)
    assert read.verify(KEY) is not None


def test_a_change_of_any_byte_is_found() -> None:
    """Every byte of the form changed, one at a time: unreadable or forged."""
    text = minted("methods getinfo", "before 100").encode()
    whole = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    for place in range(len(whole)):
        changed = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
        try:
            read = Macaroon.decode(base64.urlsafe_b64encode(changed).decode().rstrip("="))
        except MacaroonError:
            continue
        assert read.verify(KEY) is None, place


def test_every_shortened_or_lengthened_form_is_found() -> None:
    """No prefix of a token is a token, nor a token with something behind it."""
    text = minted("methods getinfo").encode()
    for length in range(len(text)):
        with pytest.raises(MacaroonError):
            Macaroon.decode(text[:length])
    for more in ("A", "AAAA", "=", " ", "\n", text):
        with pytest.raises(MacaroonError):
            Macaroon.decode(text + more)


def test_a_caveat_cannot_be_removed_replaced_or_moved() -> None:
    """With the last signature alone nothing shorter or other can be made."""
    token = minted("methods getinfo", "before 100")
    for caveats in ((), ("methods getinfo",), ("before 100",), ("before 100", "methods getinfo")):
        assert Macaroon(NAME, caveats, token.signature).verify(KEY) is None
    assert Macaroon(b"other", token.caveats, token.signature).verify(KEY) is None
    assert token.verify(b"other key") is None


def test_a_restricted_token_counts_on_what_it_was_made_from() -> None:
    """What a limit is counted on stays the same in all that is derived, and is no signature."""
    token = minted("rate 1/1", "rate 2/2")
    accounts = token.verify(KEY)
    derived = token.restricted("rate 3/3").verify(KEY)
    assert accounts is not None
    assert derived is not None
    assert derived[:2] == accounts
    assert len(set(derived)) == 3
    assert token.signature not in derived


def test_a_token_is_bounded() -> None:
    """More caveats or more bytes than allowed are refused, when made and when read."""
    full = minted(*["x"] * MOST_CAVEATS)
    with pytest.raises(MacaroonError):
        full.restricted("x")
    with pytest.raises(MacaroonError):
        Macaroon.decode(minted("x" * LONGEST * 2).encode())


def test_a_macaroon_does_not_show_its_signature() -> None:
    """Its representation holds what is public."""
    token = minted("before 1")
    assert token.signature.hex() not in repr(token)
    assert token.encode() not in repr(token)
