-- The shop of the demonstration. The tables carry no unique constraint on purpose: what keeps a payment from being
-- booked twice is distsys alone, and the audit counts what got through.
CREATE EXTENSION distsys;

CREATE TABLE ledger (
    id      bigint GENERATED ALWAYS AS IDENTITY,
    payment uuid NOT NULL,              -- the idempotency key
    account text NOT NULL,
    amount  bigint NOT NULL,            -- cents; the two rows of a payment add up to 0
    shard   int NOT NULL,
    token   bigint NOT NULL             -- fencing token of the lease that the writer believed to hold
);

-- What the consumer made of the events.
CREATE TABLE booking (
    payment  uuid NOT NULL,
    amount   bigint NOT NULL,
    position bigint NOT NULL,
    attempt  int NOT NULL
);

SELECT distsys.rate_limit_create('per address', quota => 10, period => '1 s', burst => 20, in_transaction => 'forbid');
SELECT distsys.outbox_topic_create('payments');
SELECT distsys.outbox_group_create('payments', 'bookkeeping', ttl => '5 s', backoff_base => '100 ms');

CREATE ROLE shop LOGIN;
CREATE ROLE bookkeeper LOGIN;
SELECT distsys.access_grant('shop', 'app'), distsys.access_grant('bookkeeper', 'consumer');
GRANT INSERT, SELECT ON ledger TO shop;
GRANT INSERT, SELECT ON booking TO bookkeeper;
