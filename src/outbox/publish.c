/*
 * publish.c: publishing events, in the transaction of the business rows.
 *
 * Everything that data can make fail fails here; at COMMIT the sequencer only
 * draws positions and inserts. Nothing is visible before the commit, to the
 * publisher neither.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "compat.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/uuid.h"

#include "core/clock.h"
#include "core/guc.h"
#include "core/stats.h"
#include "outbox/event.h"
#include "outbox/topic.h"
#include "store/sequencer.h"

/* UUID version 7 (RFC 9562): milliseconds since 1970, then random bits. */
static Datum
new_id(TimestampTz now)
{
	pg_uuid_t  *uuid = palloc(sizeof(pg_uuid_t));
	uint64		ms = (uint64) (now / 1000) + (uint64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY * 1000;

	if (!pg_strong_random(uuid->data, UUID_LEN))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	for (int i = 0; i < 6; i++)
		uuid->data[i] = (uint8) (ms >> (40 - 8 * i));
	uuid->data[6] = (uuid->data[6] & 0x0f) | 0x70;
	uuid->data[8] = (uuid->data[8] & 0x3f) | 0x80;
	return UUIDPGetDatum(uuid);
}

static void
check_size(const char *what, Size bytes)
{
	if (bytes > (Size) guc_outbox_max_bytes)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("%s of an event is too large", what),
				 errdetail("It has %zu bytes, distsys.outbox_max_bytes is %d.", bytes, guc_outbox_max_bytes),
				 errhint("Store the content elsewhere and publish a reference to it.")));
}

static void
set(OutboxEvent *event, int column, Datum value)
{
	event->values[column - 1] = value;
	event->nulls[column - 1] = false;
}

static void
set_payload(OutboxEvent *event, Jsonb *payload)
{
	check_size("payload", VARSIZE(payload));
	set(event, EVENT_PAYLOAD, JsonbPGetDatum(payload));
}

static void
set_headers(OutboxEvent *event, Jsonb *headers)
{
	if (!JB_ROOT_IS_OBJECT(headers))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("headers must be a JSON object")));
	check_size("headers", VARSIZE(headers));
	set(event, EVENT_HEADERS, JsonbPGetDatum(headers));
}

/* A new event of a topic; id, type and payload or body are still to be set. */
static void
event_new(OutboxEvent *event, const NameArg *topic, TimestampTz now)
{
	memset(event->nulls, true, sizeof(event->nulls));
	set(event, EVENT_TOPIC, topic->datum);
	set(event, EVENT_POSITION, Int64GetDatum(0));	/* the sequencer knows it at COMMIT */
	set(event, EVENT_OCCURRED_AT, TimestampTzGetDatum(now));
}

static void
check_can_publish(const char *command, const NameArg *topic)
{
	PreventCommandDuringRecovery(command);
	PreventCommandIfReadOnly(command);
	PreventCommandIfParallelMode(command);
	topic_check(topic);
}

/* ---- outbox_publish and _bytes: (topic, type, payload | body, key, headers, id, deliver_at) ---- */

static Datum
publish(FunctionCallInfo fcinfo, bool bytes)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	NameArg		type = arg_name(fcinfo, 1, "type", NAME_LONG);
	TimestampTz now = clock_wall();
	OutboxEvent event;
	Datum		id;

	arg_not_null(fcinfo, 2, bytes ? "body" : "payload");
	if (!PG_ARGISNULL(6))
		arg_not_built("deliver_at", "Leave deliver_at null.");
	check_can_publish("outbox_publish()", &topic);

	event_new(&event, &topic, now);
	id = PG_ARGISNULL(5) ? new_id(now) : PG_GETARG_DATUM(5);
	set(&event, EVENT_ID, id);
	set(&event, EVENT_TYPE, type.datum);
	if (bytes)
	{
		bytea	   *body = PG_GETARG_BYTEA_PP(2);

		check_size("body", VARSIZE_ANY_EXHDR(body));
		set(&event, EVENT_BODY, PointerGetDatum(body));
	}
	else
		set_payload(&event, PG_GETARG_JSONB_P(2));
	if (!PG_ARGISNULL(3))
		set(&event, EVENT_KEY, arg_name(fcinfo, 3, "key", NAME_LONG).datum);
	if (!PG_ARGISNULL(4))
		set_headers(&event, PG_GETARG_JSONB_P(4));

	sequencer_append(event.values, event.nulls);
	stats_add("outbox", name_cstring(topic), "published", 1);
	return id;
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_publish);

Datum
distsys_outbox_publish(PG_FUNCTION_ARGS)
{
	return publish(fcinfo, false);
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_publish_bytes);

Datum
distsys_outbox_publish_bytes(PG_FUNCTION_ARGS)
{
	return publish(fcinfo, true);
}

/* ---- outbox_publish_all(topic, events jsonb) ---- */

static void
raise_bad_event(int ord, const char *problem)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg("invalid event in events"),
			 errdetail("Element %d: %s", ord, problem),
			 errhint("An event is {\"type\": ..., \"payload\": ..., \"key\": ..., \"headers\": ..., \"id\": ...}; type and payload are required.")));
}

/* A member as text Datum; 0 when it is absent or null. */
static Datum
member_text(int ord, const JsonbValue *value, const char *what)
{
	if (value->type != jbvString)
		raise_bad_event(ord, psprintf("%s is not a string.", what));
	return arg_name_datum(PointerGetDatum(cstring_to_text_with_len(value->val.string.val, value->val.string.len)),
						  what, NAME_LONG).datum;
}

static Jsonb *
member_object(int ord, JsonbValue *value, const char *what)
{
	if (value->type != jbvBinary || !JsonContainerIsObject(value->val.binary.data))
		raise_bad_event(ord, psprintf("%s is not an object.", what));
	return JsonbValueToJsonb(value);
}

static bool
member_is(const JsonbValue *key, const char *name)
{
	return key->val.string.len == (int) strlen(name) && memcmp(key->val.string.val, name, key->val.string.len) == 0;
}

static bool
known_member(const JsonbValue *key)
{
	return member_is(key, "type") || member_is(key, "key") || member_is(key, "headers") || member_is(key, "id");
}

/* Reads one element of the array into *event; returns its id. */
static Datum
event_from_json(int ord, JsonbContainer *object, const NameArg *topic, OutboxEvent *event)
{
	TimestampTz now = clock_wall();
	JsonbIterator *iterator;
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	value;

	event_new(event, topic, now);
	iterator = JsonbIteratorInit(object);
	(void) JsonbIteratorNext(&iterator, &value, false); /* WJB_BEGIN_OBJECT */
	while ((token = JsonbIteratorNext(&iterator, &key, false)) == WJB_KEY)
	{
		(void) JsonbIteratorNext(&iterator, &value, true);
		if (member_is(&key, "payload"))
			set_payload(event, JsonbValueToJsonb(&value));
		else if (value.type == jbvNull && known_member(&key))
			continue;
		else if (member_is(&key, "type"))
			set(event, EVENT_TYPE, member_text(ord, &value, "type"));
		else if (member_is(&key, "key"))
			set(event, EVENT_KEY, member_text(ord, &value, "key"));
		else if (member_is(&key, "headers"))
			set_headers(event, member_object(ord, &value, "headers"));
		else if (member_is(&key, "id"))
			set(event, EVENT_ID, DirectFunctionCall1(uuid_in,
													 CStringGetDatum(TextDatumGetCString(member_text(ord, &value, "id")))));
		else
			raise_bad_event(ord, psprintf("\"%s\" is unknown.", pnstrdup(key.val.string.val, key.val.string.len)));
	}
	if (event->nulls[EVENT_TYPE - 1])
		raise_bad_event(ord, "type is missing.");
	if (event->nulls[EVENT_PAYLOAD - 1])
		raise_bad_event(ord, "payload is missing.");
	if (event->nulls[EVENT_ID - 1])
		set(event, EVENT_ID, new_id(now));
	return event->values[EVENT_ID - 1];
}

PGDLLEXPORT PG_FUNCTION_INFO_V1(distsys_outbox_publish_all);

Datum
distsys_outbox_publish_all(PG_FUNCTION_ARGS)
{
	NameArg		topic = arg_name(fcinfo, 0, "topic", NAME_SHORT);
	Jsonb	   *events;
	int			n;
	Datum	   *ids;

	arg_not_null(fcinfo, 1, "events");
	events = PG_GETARG_JSONB_P(1);
	if (!JB_ROOT_IS_ARRAY(events) || JB_ROOT_IS_SCALAR(events))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("events must be a JSON array")));
	check_can_publish("outbox_publish_all()", &topic);

	n = JB_ROOT_COUNT(events);
	ids = palloc(Max(n, 1) * sizeof(Datum));
	for (int i = 0; i < n; i++)
	{
		JsonbValue *element = getIthJsonbValueFromContainer(&events->root, i);
		OutboxEvent event;

		if (element->type != jbvBinary || !JsonContainerIsObject(element->val.binary.data))
			raise_bad_event(i + 1, "it is not an object.");
		ids[i] = event_from_json(i + 1, element->val.binary.data, &topic, &event);
		sequencer_append(event.values, event.nulls);
	}
	stats_add("outbox", name_cstring(topic), "published", n);
	PG_RETURN_ARRAYTYPE_P(construct_array(ids, n, UUIDOID, UUID_LEN, false, TYPALIGN_CHAR));
}
