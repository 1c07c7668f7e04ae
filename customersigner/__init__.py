"""The signer: holds the seed and dials in to customerd."""
