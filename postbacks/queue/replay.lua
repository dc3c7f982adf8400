-- replay: a dead postback goes to the end of its lane again, with all its resends before it.
-- Its attempts stay in the ledger and its next attempt has the next number.
--
-- A message that only a newer version could read goes back into Celery's queue, as it came, and the ledger
-- forgets it: whoever takes it in next reads it again.
--
-- KEYS[last]  list  the queue that messages are taken in from
-- ARGV[2] id   ARGV[3] how the reason of such a message begins
-- Returns the state the postback is in afterwards ('queued': back in the queue), '' if the ledger does not
-- have it.
local id = ARGV[2]
local record = RECORD .. id
local r = redis.call('HMGET', record, 'state', 'account', 'group', 'url', 'raw', 'reason', 'bytes')
if not r[1] then return '' end
if r[1] == 'dead' and r[5] and string.sub(r[6] or '', 1, #ARGV[3]) == ARGV[3] then
  redis.call('ZREM', DEAD, id)
  redis.call('DEL', record)
  redis.call('DECRBY', LEDGER_BYTES, tonumber(r[7] or 0))
  redis.call('LPUSH', KEYS[#KEYS], r[5])
  return 'queued'
end
if r[1] ~= 'dead' or r[4] == '' then return r[1] end -- without a URL there is nothing to send
local lane = r[2] .. '/' .. r[3]
redis.call('ZREM', DEAD, id)
redis.call('HSET', record, 'state', 'waiting', 'failures', 0)
redis.call('HDEL', record, 'reason', 'ended_ms')
redis.call('HINCRBY', BACKLOG, r[2], 1)
redis.call('RPUSH', LANE .. lane, id)
make_ready(lane)
return 'waiting'
