-- replay: a dead postback goes to the end of its lane again, with all its resends before it.
-- Its attempts stay in the ledger and its next attempt has the next number.
--
-- ARGV[2] id
-- Returns the state the postback is in afterwards, '' if the ledger does not have it.
local id = ARGV[2]
local record = RECORD .. id
local r = redis.call('HMGET', record, 'state', 'account', 'group', 'url')
if not r[1] then return '' end
if r[1] ~= 'dead' or r[4] == '' then return r[1] end -- without a URL there is nothing to send
local lane = r[2] .. '/' .. r[3]
redis.call('ZREM', DEAD, id)
redis.call('HSET', record, 'state', 'waiting', 'failures', 0)
redis.call('HDEL', record, 'reason', 'ended_ms')
redis.call('HINCRBY', BACKLOG, r[2], 1)
redis.call('RPUSH', LANE .. lane, id)
make_ready(lane)
return 'waiting'
