-- cancel: a postback that waits or is parked is never sent. One whose POST is open is not sent again.
-- An id that is not known yet is remembered, so that its message, still in Celery's queue, is dropped.
--
-- ARGV[2] id   ARGV[3] seconds to remember an id that is not known yet
-- Returns the state the postback is in afterwards.
local id, remember_s = ARGV[2], ARGV[3]
local record = RECORD .. id
local r = redis.call('HMGET', record, 'state', 'account', 'group')
local state = r[1]
if not state then
  redis.call('HSET', record, 'state', 'cancelled', 'reason', 'revoked', 'created_ms', now, 'ended_ms', now)
  redis.call('EXPIRE', record, remember_s)
  return 'cancelled'
end
if state == 'waiting' then
  redis.call('LREM', LANE .. r[2] .. '/' .. r[3], 1, id)
  redis.call('ZREM', QUARANTINE, id)
elseif state == 'parked' then
  redis.call('ZREM', PARKED, id)
elseif state == 'sending' then
  redis.call('HSET', record, 'cancel', 1)
  return state
else
  return state
end
finish(id, r[2], 'cancelled', 'revoked', DONE)
return 'cancelled'
