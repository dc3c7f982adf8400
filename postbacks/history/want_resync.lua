-- want_resync: notes that a resync is wanted, as long as the feed is on: another one, where one is under way.
--
-- KEYS CHANGES, HISTORY
-- ARGV[2] why
-- Returns 1, or 0 where the feed is off.
-- Atomic: no resync is wanted of a feed that is off.
if redis.call('EXISTS', CHANGES) == 0 then return 0 end
redis.call('HSET', HISTORY, 'resync', ARGV[2], 'again', 1, 'unrecorded_ms', 0)
return 1
