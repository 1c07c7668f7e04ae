"""The link that the signer dials, and the safe mode without it."""
