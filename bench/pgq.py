"""PgQ, the queue of Skytools: publishing one event, and reading batches between two ticks."""
from case import Load
from yardsticks import PAYLOAD

SETUP = ("CREATE EXTENSION pgq", "SELECT pgq.create_queue('bench')", "SELECT pgq.create_queue('drain')")

PUBLISH = Load("PgQ insert_event", f"SELECT pgq.insert_event('bench', 'payment.created', '{PAYLOAD}');\n", "pgq")


def filled(events, batch):
    """As many ticks as batches, so that a batch is as large as a fetch."""
    return ("SELECT pgq.force_tick('drain')", "SELECT pgq.ticker('drain')", "SELECT pgq.register_consumer('drain', 'bench')", f"""DO $$ BEGIN FOR b IN 1..{events // batch} LOOP
  PERFORM pgq.insert_event('drain', 'payment.created', '{PAYLOAD}') FROM generate_series(1, {batch});
  PERFORM pgq.force_tick('drain');
  COMMIT;
  PERFORM pgq.ticker('drain');
  COMMIT;
END LOOP; END $$""", """CREATE TABLE pgq_first AS
  SELECT min(s.sub_last_tick) AS tick FROM pgq.subscription s JOIN pgq.queue q ON q.queue_id = s.sub_queue WHERE queue_name = 'drain'""")


def drain(events, batch):
    return Load("PgQ next_batch, get_batch_events, finish_batch", r"""BEGIN;
SELECT pgq.next_batch('drain', 'bench') AS batch \gset
SELECT count(*), sum(length(ev_data)) FROM pgq.get_batch_events(:batch);
SELECT pgq.finish_batch(:batch);
COMMIT;
""", "pgq", per=batch, transactions=events // batch,
                before=("SELECT pgq.unregister_consumer('drain', 'bench')",
                        "SELECT pgq.register_consumer_at('drain', 'bench', (SELECT tick FROM pgq_first))"))
