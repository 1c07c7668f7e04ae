"""What customer and merchant share: cryptography, contract, wire format, RPC."""
