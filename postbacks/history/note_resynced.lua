-- note_resynced: notes that a resync has ended. It answers the reason that it began for, as long as no entry was dropped and no
-- resync was asked for since then.
--
-- KEYS HISTORY
-- ARGV[2] why the resync was wanted that it answers   ARGV[3] gaps that were counted when it began
-- Returns 1 where no further resync is wanted, else 0.
-- Atomic: a gap is noted before this, or after it.
redis.call('HSET', HISTORY, 'resynced_ms', now)
local r = redis.call('HMGET', HISTORY, 'resync', 'gaps', 'again')
if r[3] or tonumber(r[2] or 0) ~= tonumber(ARGV[3]) then return 0 end
if r[1] == ARGV[2] then redis.call('HDEL', HISTORY, 'resync', 'unrecorded_ms') end
return redis.call('HEXISTS', HISTORY, 'resync') == 0 and 1 or 0
