"""The owner RPC: one definition per method, one gate, subscriptions."""
