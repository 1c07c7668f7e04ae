"""Messages between customer and merchant, and between daemon and signer."""
