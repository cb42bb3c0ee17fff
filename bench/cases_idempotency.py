"""Idempotency keys, against bare inserts and the INSERT ON CONFLICT of the web."""
from case import MEMORY, Case, Goal, Load, Rival

KEY = "'c' || :client_id || '.' || :k"
FRESH = "\\set k random(1, 1000000000)\n"
BUSINESS = "INSERT INTO bare_ledger (account, amount, at) VALUES ('a', :k, clock_timestamp());\n"

OURS = rf"""{FRESH}BEGIN;
SELECT token FROM distsys.idempotency_begin('bench', {KEY}, sha256('x')) \gset
SELECT distsys.idempotency_complete('bench', {KEY}, :token, 201, '{{"ok": true}}');
COMMIT;
"""
BARE = rf"""{FRESH}BEGIN;
INSERT INTO bare_claim VALUES ('bench', {KEY}, '{{"ok": true}}', clock_timestamp()) ON CONFLICT DO NOTHING;
{BUSINESS}COMMIT;
"""
USUAL = rf"""{FRESH}BEGIN;
INSERT INTO usual_key VALUES ('bench', {KEY}, sha256('x'), NULL, NULL, clock_timestamp()) ON CONFLICT DO NOTHING;
UPDATE usual_key SET status = 201, body = '{{"ok": true}}' WHERE scope = 'bench' AND key = {KEY};
COMMIT;
"""
DONE = 1000     # completed keys that replays ask for

CASES = [
    Case("idempotency", "idempotency_begin + complete in one transaction", Load("first run", OURS),
         [Rival(Load("two bare INSERTs in one transaction", BARE, "bare"), Goal(0.5)),
          Rival(Load("INSERT ON CONFLICT, UPDATE in one transaction", USUAL, "usual"))]),
    Case("idempotency", "idempotency_begin, replay of a completed key",
         Load("replay", f"\\set k random(1, {DONE})\nSELECT (distsys.idempotency_begin('bench', 'done.' || :k, sha256('x'))).status;\n"),
         [Rival(Load("SELECT of the row by key",
                     f"\\set k random(1, {DONE})\nSELECT status, body FROM usual_key WHERE scope = 'bench' AND key = 'done.' || :k;\n", "usual"))],
         setup=(f"""DO $$ BEGIN FOR k IN 1..{DONE} LOOP
             PERFORM distsys.idempotency_complete('bench', 'done.' || k, token, 201, '{{"ok": true}}')
               FROM distsys.idempotency_begin('bench', 'done.' || k, sha256('x')) WHERE token IS NOT NULL;
             COMMIT; END LOOP; END $$""",
                f"""INSERT INTO usual_key SELECT 'bench', 'done.' || g, sha256('x'), 201, '{{"ok": true}}', now() FROM generate_series(1, {DONE}) g
               ON CONFLICT DO NOTHING"""),
         commits=(MEMORY,)),
]
