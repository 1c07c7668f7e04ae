-- Of a channel's states one alone has a closing authorization, or two for a moment. Every payment
-- looks for the older ones; without this it reads all states that the channel ever had.
create index state_signed on state (channel, index) where signature is not null;
