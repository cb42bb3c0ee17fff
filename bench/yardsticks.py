"""What distsys is measured against in PostgreSQL: bare statements, and the usual solutions that one finds on the web.

The usual solutions are written as carefully as they can be without leaving their idea: prepared, by primary key, HOT.
"""
from case import KEYS, Load

SETUP = f"""
CREATE TABLE bare_row (k text COLLATE "C" PRIMARY KEY, n bigint NOT NULL, at timestamptz, filler text) WITH (fillfactor = 50);
INSERT INTO bare_row SELECT 'k' || g, 0, now(), repeat('x', 60) FROM generate_series(1, {KEYS}) g;
CREATE TABLE bare_hot (LIKE bare_row INCLUDING ALL) WITH (fillfactor = 50);
INSERT INTO bare_hot SELECT 'k1', 0, now(), repeat('x', 60);
CREATE TABLE bare_event (LIKE distsys.outbox_event_log INCLUDING ALL);
CREATE SEQUENCE bare_position;
CREATE TABLE bare_claim (scope text COLLATE "C", key text COLLATE "C", body text, at timestamptz, PRIMARY KEY (scope, key));
CREATE TABLE bare_ledger (id bigserial PRIMARY KEY, account text, amount bigint, at timestamptz);

CREATE TABLE usual_bucket (key text COLLATE "C" PRIMARY KEY, tokens float8 NOT NULL, at timestamptz NOT NULL) WITH (fillfactor = 50);
CREATE FUNCTION usual_take(k text, capacity float8, rate float8) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO usual_bucket AS b VALUES (k, capacity - 1, clock_timestamp())
  ON CONFLICT (key) DO UPDATE SET at = clock_timestamp(),
      tokens = least(capacity, b.tokens + extract(epoch FROM clock_timestamp() - b.at) * rate) - 1
    WHERE least(capacity, b.tokens + extract(epoch FROM clock_timestamp() - b.at) * rate) >= 1;
  RETURN FOUND;
END $$;
INSERT INTO usual_bucket SELECT 'k' || g, 1000000, now() FROM generate_series(1, {KEYS}) g;

CREATE TABLE usual_lease (name text COLLATE "C" PRIMARY KEY, owner text, until timestamptz NOT NULL) WITH (fillfactor = 50);
INSERT INTO usual_lease SELECT 'a' || c || '.' || k, NULL, '-infinity' FROM generate_series(0, 63) c, generate_series(1, 150) k;

CREATE TABLE usual_slot (slot int PRIMARY KEY, owner text, until timestamptz) WITH (fillfactor = 50);
INSERT INTO usual_slot SELECT g FROM generate_series(1, 100) g;

CREATE TABLE usual_key (scope text COLLATE "C", key text COLLATE "C", fingerprint bytea, status int, body jsonb, at timestamptz,
  PRIMARY KEY (scope, key)) WITH (fillfactor = 70);

CREATE TABLE usual_queue (id bigserial PRIMARY KEY, read_ct int NOT NULL DEFAULT 0, at timestamptz NOT NULL DEFAULT now(),
  vt timestamptz NOT NULL DEFAULT now(), message jsonb);
CREATE INDEX ON usual_queue (vt);
ANALYZE;
"""

PAYLOAD = '{"id": 4711, "amount": 1234, "currency": "EUR"}'

ONE_UPDATE = rf"""\set k random(1, {KEYS})
UPDATE bare_row SET n = n + 1, at = clock_timestamp() WHERE k = 'k' || :k;
"""
HOT_ROW = "UPDATE bare_hot SET n = n + 1, at = clock_timestamp() WHERE k = 'k1';\n"

UPDATE = Load("bare UPDATE by key", ONE_UPDATE, "bare")
UPDATES = Load("two bare UPDATEs by key", ONE_UPDATE + ONE_UPDATE, "bare", parts={"": "UPDATE"})
HOT_UPDATE = Load("bare UPDATE of one hot row", HOT_ROW, "bare")
SELECT = Load("SELECT 1", "SELECT 1;\n", "bare")


def pipelined(script, name, kind, calls):
    return Load(name, "\\startpipeline\n" + script * calls + "\\endpipeline\n", kind, per=calls)
