"""Following an EVM chain and sending transactions through one lane per account."""
