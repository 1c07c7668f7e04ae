-- The signer's pairing: the offer that is open, and the signer that took one up.

-- Of the one-time secret only what recognises its holder (zkchannels/wire/pairing.py).
create table pairing_offer (
    single      boolean primary key default true check (single),
    stored_key  bytea not null check (octet_length(stored_key) = 32),
    daemon_key  bytea not null check (octet_length(daemon_key) = 32),
    expires     timestamptz not null
);

create table paired_signer (
    single      boolean primary key default true check (single),
    identity    bytea not null check (octet_length(identity) = 20),
    -- In DER; null for a signer that dials a Unix socket.
    certificate bytea,
    -- The offer that it took up: its own repeat is answered again, nobody else's.
    stored_key  bytea not null check (octet_length(stored_key) = 32),
    daemon_key  bytea not null check (octet_length(daemon_key) = 32),
    expires     timestamptz not null,
    paired      timestamptz not null default now()
);
