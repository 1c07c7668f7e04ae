"""The best attack on the range argument, made visible by shortening the challenge."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from zkchannels.abacus import InvalidProof, R, SecretKey, verify_pay
from zkchannels.abacus.encoding import random_scalars
from zkchannels.abacus.transcript import Transcript

from .adversary import Attempt, polynomials, truth, with_balances
from .support import CONTEXT, Tokened, Verifier

GUESSES = (3, 50, 120, 200)
# Accidents do not come four times in a row: less than one run in ten million fails by chance.
REPEATS = 4


def interpolated(coefficients: Sequence[int], guesses: Sequence[int]) -> list[int]:
    """Return the cubic that equals a quartic at four places.

    It is the quartic minus its leading coefficient times (X - g_1) .. (X - g_4).
    """
    vanishing = [1]
    for guess in guesses:
        vanishing = [
            (low - guess * high) % R
            for low, high in zip([0, *vanishing], [*vanishing, 0], strict=True)
        ]
    leading = coefficients[4]
    return [
        (coefficient - leading * term) % R
        for coefficient, term in zip(coefficients[:4], vanishing[:4], strict=True)
    ]


def test_a_bad_digit_wins_exactly_the_challenges_it_prepared_for(
    merchant: SecretKey, opened: Tokened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 8 bits, coefficients fitted to four challenges always win at those and at no other.

    At another challenge the verifier computes another K0, whose hash is the challenge in one of
    256 cases by accident: about 5 wins in 256 tries in all. With 128 bits the same attacker has
    5 / 2**128 a try, which is the bound.
    """
    full = Transcript.short_challenge
    monkeypatch.setattr(Transcript, "short_challenge", lambda self, label: full(self, label) & 255)
    lie = with_balances(truth(opened, 1001), -1, 1501, (-1, *[0] * 31))
    attempt = Attempt(merchant.public, CONTEXT, lie)
    quartic = polynomials(lie.digits, attempt.masks.digits, attempt.y)
    assert quartic[4] != 0
    cubic = interpolated(quartic, GUESSES)

    proofs: dict[int, list[bytes]] = {guess: [] for guess in GUESSES}
    while any(len(proofs[guess]) < REPEATS for guess in GUESSES):
        proof = attempt.finish(cubic, random_scalars(4))
        proofs.setdefault(proof.challenge, []).append(proof.to_bytes())

    def wins(verifier: Verifier, proof: bytes) -> bool:
        try:
            verify_pay(verifier, CONTEXT, lie.nonce, lie.amount, proof)
        except InvalidProof:
            return False
        return True

    for verifier in (merchant, merchant.public):
        winners = {
            challenge
            for challenge, made in proofs.items()
            if len(made) >= REPEATS and all(wins(verifier, proof) for proof in made[:REPEATS])
        }
        assert winners == set(GUESSES)


def test_the_same_attack_fails_against_the_real_challenge(
    merchant: SecretKey, verifier: Verifier, opened: Tokened
) -> None:
    """With 128 bits the fitted coefficients are refused."""
    lie = with_balances(truth(opened, 1001), -1, 1501, (-1, *[0] * 31))
    attempt = Attempt(merchant.public, CONTEXT, lie)
    quartic = polynomials(lie.digits, attempt.masks.digits, attempt.y)
    proof = attempt.finish(interpolated(quartic, GUESSES)).to_bytes()
    with pytest.raises(InvalidProof):
        verify_pay(verifier, CONTEXT, lie.nonce, lie.amount, proof)
