-- retract: a postback that was kept as dead for its id is dropped: it turned out to be the one that has the id.
--
-- KEYS[last]  hash  postbacks:totals
-- ARGV[2] the id that it was kept under
-- Returns 1, or 0 where it is not kept any more.
local id = ARGV[2]
local r = redis.call('HMGET', RECORD .. id, 'bytes', 'account')
local bytes = tonumber(r[1])
if not bytes or redis.call('ZREM', DEAD, id) == 0 then return 0 end
redis.call('DEL', RECORD .. id)
leave_dead(r[2], id, bytes)
redis.call('DECRBY', LEDGER_BYTES, bytes)
if redis.call('ZREM', UNROUTED, id) == 1 then redis.call('DECRBY', UNROUTED_BYTES, bytes) end
redis.call('HINCRBY', KEYS[#KEYS], 'id_taken', -1)
return 1
