-- begin_resync: notes that a resync begins: from now on one that is asked for is another one.
--
-- KEYS HISTORY
-- ARGV[1] as all
-- Returns {why it is wanted, gaps that are counted}; '' where none is.
-- Atomic: one that is asked for is this one or another.
redis.call('HDEL', HISTORY, 'again')
local r = redis.call('HMGET', HISTORY, 'resync', 'gaps')
return { r[1] or '', tonumber(r[2] or 0) }
