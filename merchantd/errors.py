"""What can stop merchantd or one of its commands; every message is meant for the operator."""

from __future__ import annotations


class MerchantError(Exception):
    """Base of all errors that a command reports without a traceback, exit status 1."""


class NotInitialised(MerchantError):
    """`merchantd init` has not finished on this database."""


class KeyMismatch(MerchantError):
    """The key file, the database and the escrow do not belong together."""


class TermsMismatch(MerchantError):
    """`merchantd init` was started before with other terms of the escrow."""


class ImpossibleAsset(MerchantError):
    """No escrow can hold this asset in this unit, or with this delay."""


class Unfunded(MerchantError):
    """The merchant's account cannot pay for a transaction."""


class MarginTooLong(MerchantError):
    """The escrow's delay leaves no time to act a margin before its end."""


class AlreadyServing(MerchantError):
    """Another merchantd works on this database."""


class UnknownChannel(MerchantError):
    """No recorded channel has an id that begins so, or more than one has."""


class NotExpirable(MerchantError):
    """The channel is not open, so there is nothing to expire."""
