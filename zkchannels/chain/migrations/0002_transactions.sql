-- Transactions of the accounts this program sends from: one row each, written before it is sent.
create table chain_tx (
    id bigint generated always as identity primary key,
    lane text not null,
    purpose text not null check (purpose <> ''),
    account bytea not null check (octet_length(account) = 20),
    nonce bigint not null check (nonce >= 0),
    recipient bytea check (octet_length(recipient) = 20),
    value numeric(78, 0) not null check (value >= 0),
    data bytea not null,
    gas bigint not null check (gas > 0),
    deadline bigint,
    filler boolean not null,
    status text not null check (status in ('pending', 'included', 'final', 'failed')),
    block_number bigint check (block_number >= 0),
    block_hash bytea check (octet_length(block_hash) = 32),
    trouble text,
    reason text not null default '',
    created timestamptz not null default now(),
    check ((block_number is null) = (block_hash is null)),
    check (status in ('pending', 'failed') or block_number is not null)
);

-- One attempt per purpose at a time; a failed one may be followed by another.
create unique index chain_tx_purpose on chain_tx (lane, purpose) where status <> 'failed';
-- A nonce serves one transaction; a failed one has no more use for it.
create unique index chain_tx_nonce on chain_tx (account, nonce) where status <> 'failed';
create index chain_tx_open on chain_tx (account) where status in ('pending', 'included');

-- Every version that was ever signed (fees raised, or another nonce): any of them may be included.
create table chain_tx_version (
    tx bigint not null references chain_tx,
    version integer not null check (version >= 0),
    hash bytea not null unique check (octet_length(hash) = 32),
    nonce bigint not null check (nonce >= 0),
    tip numeric(78, 0) not null check (tip >= 0),
    max_fee numeric(78, 0) not null check (max_fee >= tip),
    raw bytea not null,
    signed_at bigint not null,
    primary key (tx, version)
);
