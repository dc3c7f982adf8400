-- journal: adds an entry to the journal's stream, from which a recorder copies it to the database, or a tick to the log.
--
-- KEYS CHANGES, JOURNAL
-- ARGV[2] the entry (JSON)   ARGV[3] entries that may wait
-- Returns 1, 0 where the feed is off, so that no recorder comes for it, or -1 where too many wait: it is not added.
-- Atomic: what is said of the feed is true of the moment in which the entry is added.
local entry, most = ARGV[2], tonumber(ARGV[3])
if redis.call('XLEN', JOURNAL) >= most then return -1 end
redis.call('XADD', JOURNAL, '*', 'at_ms', now, 'entry', entry)
return redis.call('EXISTS', CHANGES)
