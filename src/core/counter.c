/*
 * counter.c: draws from a sequence's page, see counter.h.
 *
 * The page is written as nextval writes it, so nextval, setval, pg_dump and
 * WAL replay understand it: values are logged LOG_AHEAD at a time, and the
 * record says the last value of the reserve. After a crash the counter goes on
 * behind the reserve: numbers are lost, never given twice.
 *
 * Lock: the sequence's one buffer, exclusively, for the draw.
 */
#include "postgres.h"

#include "access/xlog.h"
#include "access/xloginsert.h"
#include "compat.h"
#include "storage/bufmgr.h"

#include "core/counter.h"

/* One WAL record, and one flush, in this many draws. */
#define LOG_AHEAD 1024

/* Locks the page and finds the sequence's one tuple on it. */
static Form_pg_sequence_data
lock_page(Relation rel, int lockmode, Buffer *buffer, HeapTupleData *tuple)
{
	Page		page;
	ItemId		item;

	*buffer = ReadBuffer(rel, 0);
	LockBuffer(*buffer, lockmode);
	page = BufferGetPage(*buffer);
	item = PageGetItemId(page, FirstOffsetNumber);
	Assert(ItemIdIsNormal(item));
	tuple->t_data = (HeapTupleHeader) PageGetItem(page, item);
	tuple->t_len = ItemIdGetLength(item);
	return (Form_pg_sequence_data) GETSTRUCT(tuple);
}

/* Logs `reserve` as the last value used, then leaves `last` on the page. */
static void
write_page(Relation rel, Buffer buffer, HeapTuple tuple, int64 last, int64 reserve, bool log)
{
	Form_pg_sequence_data seq = (Form_pg_sequence_data) GETSTRUCT(tuple);

	START_CRIT_SECTION();
	MarkBufferDirty(buffer);
	if (log)
	{
		xl_seq_rec	record;
		XLogRecPtr	lsn;

		XLogBeginInsert();
		XLogRegisterBuffer(0, buffer, REGBUF_WILL_INIT);
		seq->last_value = reserve;
		seq->is_called = true;
		seq->log_cnt = 0;
		XL_SEQ_REC_SET_LOCATOR(record, rel);
		XLogRegisterData((char *) &record, sizeof(record));
		XLogRegisterData((char *) tuple->t_data, tuple->t_len);
		lsn = XLogInsert(RM_SEQ_ID, XLOG_SEQ_LOG);
		PageSetLSN(BufferGetPage(buffer), lsn);
	}
	seq->last_value = last;
	seq->is_called = true;
	seq->log_cnt = reserve - last;
	END_CRIT_SECTION();
}

int64
counter_draw(Oid sequence, int64 n, XLogRecPtr *lsn)
{
	Relation	rel = relation_open(sequence, RowExclusiveLock);
	Buffer		buffer;
	HeapTupleData tuple;
	Form_pg_sequence_data seq = lock_page(rel, BUFFER_LOCK_EXCLUSIVE, &buffer, &tuple);
	int64		before = seq->is_called ? seq->last_value : seq->last_value - 1;
	int64		last = before + n;
	int64		reserve = before + (seq->is_called ? seq->log_cnt : 0);
	bool		log;

	/*
	 * The reserve is used up; or the page has not been logged since the last
	 * checkpoint began, and replay from there must find it.
	 */
	log = last > reserve || PageGetLSN(BufferGetPage(buffer)) <= GetRedoRecPtr();
	write_page(rel, buffer, &tuple, last, log ? last + LOG_AHEAD : reserve, log);

	*lsn = PageGetLSN(BufferGetPage(buffer));
	UnlockReleaseBuffer(buffer);
	relation_close(rel, RowExclusiveLock);
	return before + 1;
}

int64
counter_last(Oid sequence)
{
	Relation	rel = relation_open(sequence, AccessShareLock);
	Buffer		buffer;
	HeapTupleData tuple;
	Form_pg_sequence_data seq = lock_page(rel, BUFFER_LOCK_SHARE, &buffer, &tuple);
	int64		last = seq->is_called ? seq->last_value : seq->last_value - 1;

	UnlockReleaseBuffer(buffer);
	relation_close(rel, AccessShareLock);
	return last;
}
