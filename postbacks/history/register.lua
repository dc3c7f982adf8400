-- register: turns the feed on. What the broker has had before stands in no entry, so a resync is wanted.
--
-- KEYS CHANGES, HISTORY
-- ARGV[2] 1: also where somebody has turned it off
-- Returns 1, 0 where the feed was on, or -1 where it stays off as somebody has turned it off.
-- Atomic: nothing changes between the feed's begin and the note that a resync is wanted.
if redis.call('EXISTS', CHANGES) == 1 and redis.call('HEXISTS', HISTORY, 'on_ms') == 1 then return 0 end
if ARGV[2] ~= '1' and redis.call('HEXISTS', HISTORY, 'off_ms') == 1 then return -1 end
if redis.call('EXISTS', CHANGES) == 0 then redis.call('XADD', CHANGES, 'MAXLEN', 0, '*', 'ids', '') end -- an empty stream
redis.call('HSET', HISTORY, 'on_ms', now, 'resync', 'registered', 'unrecorded_ms', 0)
redis.call('HDEL', HISTORY, 'off_ms', 'off_reason')
return 1
