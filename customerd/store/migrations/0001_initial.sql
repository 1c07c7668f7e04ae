-- What the customer daemon must never lose. Balances are whole units of the escrow.

create table wallet (
    one         boolean primary key default true check (one),
    identity    bytea check (octet_length(identity) = 20),
    account     bytea check (octet_length(account) = 20),
    created     timestamptz not null default now()
);
insert into wallet default values;

-- Fails the statement, and so the transaction, one of whose writes changed nothing.
create function must_write(changed bigint, part integer) returns void language plpgsql as $$
begin
    if changed = 0 then
        raise exception using errcode = 'CD001', message = part::text;
    end if;
end
$$;

-- One daemon acts on a database at a time; every write carries the fence and leaves its mark, which
-- tells afterwards whether it was committed.
create table lease (
    one         boolean primary key default true check (one),
    holder      text not null,
    fence       bigint not null check (fence > 0),
    expires     timestamptz not null,
    mark        bytea not null
);

create table escrow (
    escrow      bytea primary key check (octet_length(escrow) = 20),
    chain_id    bigint not null,
    merchant    bytea not null check (octet_length(merchant) = 20),
    token       bytea not null check (octet_length(token) = 20),
    symbol      text not null,
    decimals    integer not null check (decimals between 0 and 255),
    unit        numeric(78, 0) not null check (unit > 0),
    delay       bigint not null check (delay > 0),
    g1_half     bytea not null check (octet_length(g1_half) = 240),
    escrow_key  bytea not null check (octet_length(escrow_key) = 1792)
);

create table channel (
    channel          bytea primary key check (octet_length(channel) = 32),
    label            text not null unique check (length(label) between 1 and 64),
    escrow           bytea not null references escrow,
    host             text not null,
    port             integer not null check (port between 1 and 65535),
    salt             bytea not null check (octet_length(salt) = 32),
    customer_deposit bigint not null check (customer_deposit >= 0),
    merchant_deposit bigint not null check (merchant_deposit >= 0),
    status           text not null check (status in (
        'new', 'funding', 'idle', 'proved', 'revoking', 'asked', 'decided', 'suspect', 'closed')),
    -- Newest state with a pay token; none before the channel is activated.
    index            bigint check (index >= 0),
    -- Attempt that the next payment from this state uses, or the one in flight.
    attempt          bigint not null default 0 check (attempt >= 0),
    customer_balance bigint not null check (customer_balance >= 0),
    merchant_balance bigint not null check (merchant_balance >= 0),
    token            bytea check (octet_length(token) = 96),
    -- Newest state with a closing authorization: from its commit on the only one to close on.
    authorized       bigint check (authorized >= 0),
    -- The state a close was decided on; never undone but by a newer authorization.
    closing          bigint check (closing >= 0),
    mutual_signature bytea check (octet_length(mutual_signature) = 65),
    -- Signer and database may both be old: never closed unilaterally unless the user insists.
    doubtful         boolean not null default false,
    created          timestamptz not null default now(),
    updated          timestamptz not null default now(),
    check (customer_balance + merchant_balance = customer_deposit + merchant_deposit),
    check ((index is null) = (token is null)),
    check (status = 'new' or authorized is not null),
    check (status not in ('idle', 'proved', 'revoking') or index is not null),
    check (status not in ('asked', 'decided') or closing is not null),
    check (authorized is null or index is null or authorized between index and index + 1)
);

-- States that ever had a closing authorization; its signature and permit are kept only as long as
-- it is the newest.
create table state (
    channel          bytea not null references channel on delete cascade,
    index            bigint not null check (index >= 0),
    attempt          bigint not null check (attempt >= 0),
    lock             bytea not null unique check (octet_length(lock) = 32),
    customer_balance bigint not null check (customer_balance >= 0),
    merchant_balance bigint not null check (merchant_balance >= 0),
    signature        bytea check (octet_length(signature) = 256),
    guard            bytea not null check (octet_length(guard) = 20),
    permit           bytea check (octet_length(permit) = 65),
    primary key (channel, index),
    check ((signature is null) = (permit is null))
);

create table operation (
    operation       bytea primary key check (octet_length(operation) = 16),
    number          bigint generated always as identity unique,
    kind            text not null check (kind in ('establish', 'pay', 'refund', 'close')),
    channel         bytea references channel on delete set null,
    label           text not null,
    amount          bigint,
    note            text not null default '',
    force           boolean not null default false,
    parameters      bytea not null check (octet_length(parameters) = 32),
    idempotency_key text unique,
    status          text not null default 'queued'
        check (status in ('queued', 'running', 'done', 'refused', 'cancelled')),
    step            text,
    error_kind      text,
    error_message   text,
    created         timestamptz not null default now(),
    updated         timestamptz not null default now(),
    check ((status in ('refused', 'cancelled')) = (error_kind is not null)),
    check (status = 'refused' or status = 'cancelled' or channel is not null)
);
create index operation_open on operation (number) where status in ('queued', 'running');
create index operation_channel on operation (channel, number);

create table step (
    operation   bytea not null references operation,
    number      integer not null check (number >= 0),
    name        text not null,
    started     timestamptz not null,
    finished    timestamptz,
    primary key (operation, number)
);

-- The request of an establish or a payment as it was sent: written before it is sent, and sent
-- again until it is answered.
create table attempt (
    operation    bytea primary key references operation,
    channel      bytea not null references channel on delete cascade,
    index        bigint not null check (index >= 0),
    attempt      bigint not null check (attempt >= 0),
    session      bytea not null check (octet_length(session) = 16),
    nonce        bytea check (octet_length(nonce) = 32),
    proof        bytea not null,
    -- Whether the merchant's last word on this session leaves it usable.
    live         boolean not null default true,
    receipt      boolean,
    service_note text,
    unique (channel, index, attempt)
);

create table event (
    seq         bigint primary key check (seq > 0),
    time        timestamptz not null default now(),
    topic       text not null check (topic in ('operation', 'channel', 'chain', 'signer', 'alarm', 'log')),
    kind        text not null,
    channel     bytea,
    label       text,
    operation   bytea,
    details     jsonb not null default '{}'
);
create index event_channel on event (channel, seq);
create index event_operation on event (operation, seq);
