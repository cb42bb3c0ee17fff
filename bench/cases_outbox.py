"""The outbox, against a bare INSERT, the SKIP LOCKED queue of the web, and PgQ.

Batches are summed up on the server by all three, so that what is measured is the queue and not the client's parsing.
"""
import pgq
from case import ASYNC, Case, Goal, Load, Rival
from yardsticks import PAYLOAD

BATCH = 100
EVENTS = 30_000     # in the topic that is read again in every round

PUBLISH = f"""\\set k random(1, 1000000)
SELECT distsys.outbox_publish('bench', 'payment.created', '{PAYLOAD}', 'k' || :k);
"""
BARE_INSERT = f"""\\set k random(1, 1000000)
INSERT INTO bare_event VALUES ('bench', nextval('bare_position'), gen_random_uuid(), 'payment.created', 'k' || :k, '{PAYLOAD}', NULL, NULL, clock_timestamp());
"""
USUAL_PUBLISH = f"INSERT INTO usual_queue (message) VALUES ('{PAYLOAD}');\n"

FETCH = rf"""BEGIN;
SELECT array_agg(receipt) AS receipts, sum(length(payload::text)) AS size FROM distsys.outbox_fetch('drain', 'bench', 'm', {BATCH}) \gset
SELECT distsys.outbox_ack('drain', 'bench', :receipts);
COMMIT;
"""
USUAL_FETCH = rf"""BEGIN;
WITH next AS (SELECT id FROM usual_queue WHERE vt <= clock_timestamp() ORDER BY id LIMIT {BATCH} FOR UPDATE SKIP LOCKED),
  got AS (UPDATE usual_queue q SET vt = clock_timestamp() + '30 s', read_ct = read_ct + 1 FROM next WHERE q.id = next.id RETURNING q.id, q.message)
  SELECT array_agg(id) AS ids, sum(length(message::text)) AS size FROM got \gset
DELETE FROM usual_queue WHERE id = ANY (:ids);
COMMIT;
"""

TOPIC = "SELECT distsys.outbox_topic_create('bench', if_not_exists => true);\n"
DRAIN_SETUP = ("SELECT distsys.outbox_topic_create('drain')", "SELECT distsys.outbox_group_create('drain', 'bench', start_from => 'earliest')", f"""DO $$ BEGIN FOR b IN 1..{EVENTS // 1000} LOOP
  PERFORM distsys.outbox_publish_all('drain', (SELECT jsonb_agg(jsonb_build_object('type', 'payment.created', 'payload', '{PAYLOAD}'::jsonb))
    FROM generate_series(1, 1000)));
  COMMIT; END LOOP; END $$""")
USUAL_FILL = ("TRUNCATE usual_queue", f"INSERT INTO usual_queue (message) SELECT '{PAYLOAD}' FROM generate_series(1, {EVENTS})", "ANALYZE usual_queue")

CASES = [
    Case("outbox", "outbox_publish", Load("publish", PUBLISH),
         [Rival(Load("bare INSERT of the same row", BARE_INSERT, "bare"), Goal(0.9)),
          Rival(Load("SKIP LOCKED queue, INSERT", USUAL_PUBLISH, "usual")), Rival(pgq.PUBLISH)],
         setup=(TOPIC,)),
    Case("outbox", f"outbox_fetch + outbox_ack, events in batches of {BATCH}",
         Load("drain", FETCH, per=BATCH, transactions=EVENTS // BATCH, before=("SELECT distsys.outbox_seek('drain', 'bench', 'earliest')",)),
         [Rival(Load("SKIP LOCKED queue, UPDATE and DELETE", USUAL_FETCH, "usual", per=BATCH, transactions=EVENTS // BATCH, before=USUAL_FILL), Goal(1.0)),
          Rival(pgq.drain(EVENTS, BATCH), Goal(1.0), setup=pgq.filled(EVENTS, BATCH))],
         setup=DRAIN_SETUP, commits=(ASYNC,), clients=1),
]
