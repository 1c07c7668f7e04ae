-- What is known of the chain: how far it was read, and what is final.
create table chain_state (
    one boolean primary key default true check (one),
    chain_id bigint not null check (chain_id > 0),
    final bigint not null default -1 check (final >= -1)
);

-- The escrows that are followed. Events from block `since` up to the newest block are stored,
-- or up to the block before `behind` while the address is still to be caught up.
create table chain_address (
    address bytea primary key check (octet_length(address) = 20),
    since bigint not null check (since >= 0),
    behind bigint check (behind >= since)
);

-- The newest blocks that were read, to find out where a reorganisation begins.
create table chain_block (
    number bigint primary key check (number >= 0),
    hash bytea not null unique check (octet_length(hash) = 32),
    parent_hash bytea not null check (octet_length(parent_hash) = 32),
    timestamp bigint not null check (timestamp >= 0),
    base_fee bigint not null check (base_fee >= 0)
);

-- Every event of a followed escrow on the chain as it is now; a reorganisation deletes its rows.
-- `channel` is null for events about a receiver. topics and data are the log itself.
create table chain_event (
    block_hash bytea not null check (octet_length(block_hash) = 32),
    log_index bigint not null check (log_index >= 0),
    block_number bigint not null check (block_number >= 0),
    transaction_hash bytea not null check (octet_length(transaction_hash) = 32),
    escrow bytea not null check (octet_length(escrow) = 20),
    channel bytea check (octet_length(channel) = 32),
    kind text not null,
    topics bytea[] not null,
    data bytea not null,
    primary key (block_hash, log_index)
);

create index chain_event_of_channel on chain_event (channel, block_number, log_index)
    where channel is not null;
create index chain_event_of_block on chain_event (block_number);
