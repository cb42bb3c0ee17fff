-- Fences: the highest token that a resource has seen. Epochs of tokens.
\set VERBOSITY sqlstate
SELECT distsys.fence_current('disk');
SELECT distsys.fence_pass('disk', 5), distsys.fence_current('disk');
SELECT distsys.fence_pass('disk', 5) AS same, distsys.fence_pass('disk', 4) AS lower, distsys.fence_pass('disk', 6) AS higher, distsys.fence_current('disk');
SELECT distsys.fence_assert('disk', 6), distsys.fence_assert('disk', 7);
SELECT distsys.fence_assert('disk', 6);
\set VERBOSITY default
SELECT distsys.fence_assert('disk', 6);
\set VERBOSITY sqlstate
-- resources are strangers to each other
SELECT distsys.fence_pass('other', 1), distsys.fence_current('disk');

-- what is held: the highest token shares, a higher one has it alone, a lower one keeps nothing
BEGIN;
SELECT distsys.fence_pass('disk', 1);
SELECT kind, name, mode FROM distsys.locks WHERE pid = pg_backend_pid() AND kind = 'fence';
SELECT distsys.fence_pass('disk', 7);
SELECT kind, name, mode FROM distsys.locks WHERE pid = pg_backend_pid() AND kind = 'fence';
SAVEPOINT a;
SELECT distsys.fence_pass('disk', 8);
SELECT kind, name, mode FROM distsys.locks WHERE pid = pg_backend_pid() AND kind = 'fence' ORDER BY mode;
ROLLBACK TO a;
-- the savepoint takes back record and lock
SELECT distsys.fence_current('disk');
SELECT kind, name, mode FROM distsys.locks WHERE pid = pg_backend_pid() AND kind = 'fence';
SELECT distsys.fence_pass('disk', 9), distsys.fence_pass('disk', 8);
ROLLBACK;
SELECT distsys.fence_current('disk');

-- all levels
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT distsys.fence_current('disk');
SELECT distsys.fence_pass('disk', 8), distsys.fence_pass('disk', 9), distsys.fence_current('disk');
COMMIT;
BEGIN ISOLATION LEVEL SERIALIZABLE;
SELECT distsys.fence_pass('disk', 9), distsys.fence_pass('disk', 10), distsys.fence_pass('new', 1);
COMMIT;
SELECT distsys.fence_current('disk'), distsys.fence_current('new');

-- a lease's token at a resource
SELECT token AS t FROM distsys.lease_acquire('fence lease', 'me', '30 s') \gset
SELECT distsys.fence_pass('guarded', :t), distsys.fence_current('guarded') = :t AS current;
SELECT distsys.lease_release('fence lease', :t);

-- few hash bits: a wait, never a shared record
SET distsys.hash_bits = 1;
SELECT bool_and(distsys.fence_pass('bits' || i, i)) FROM generate_series(1, 20) i;
SELECT bool_and(distsys.fence_current('bits' || i) = i) FROM generate_series(1, 20) i;
RESET distsys.hash_bits;

-- epochs, in a transaction that is rolled back: later tests go on below
BEGIN;
SELECT distsys.token_epoch() AS epoch \gset
SELECT distsys.token_epoch_bump() = :epoch + 1 AS bumped, distsys.token_epoch() = :epoch + 1 AS seen;
SELECT token > :t AND token >> 40 = :epoch + 1 AS of_the_new_epoch FROM distsys.lease_acquire('epoch', 'me', '30 s');
-- a token that every later one is above
SELECT distsys.token_advance(0) AS a0 \gset
SELECT :a0 >= token AS reached, distsys.token_epoch() = :epoch + 1 AS same_epoch FROM distsys.lease_get('epoch');
SELECT ((:epoch + 5)::bigint << 40) + 123 AS min \gset
SELECT distsys.token_advance(:min) AS a1 \gset
SELECT :a1 >= :min AS reached, distsys.token_epoch() = :epoch + 6 AS next_epoch;
SELECT token > :a1 AS above FROM distsys.lease_acquire('epoch 2', 'me', '30 s');
SELECT token > :a1 AS above FROM distsys.lease_acquire('epoch 3', 'me', '30 s');
-- an older live lease is still live: a new epoch takes nothing away
SELECT bool_and(acquired) FROM distsys.lease_get('epoch');
SAVEPOINT a;
SELECT distsys.token_advance(9007199254740991);
ROLLBACK TO a;
SELECT distsys.token_epoch() = :epoch + 6 AS unchanged;
ROLLBACK;
SELECT distsys.token_epoch() = :epoch AS taken_back;
