-- cancel: a postback that waits or is parked is never sent. One whose POST is open is not sent again.
-- An id that is not known yet is remembered, so that the first message with it that comes is not sent (`accept`).
--
-- ARGV[2] id   ARGV[3] seconds to remember an id that is not known yet
-- ARGV[4] the account whose postback is meant, '' for whosever it is
-- Returns the state the postback is in afterwards, '' if it is another account's.
local id, remember_s, account = ARGV[2], ARGV[3], ARGV[4]
local record = RECORD .. id
local r = redis.call('HMGET', record, 'state', 'account', 'group', 'schema')
local state = r[1]
if not r[4] then -- no postback of this id yet
  redis.call('HSET', record, 'state', 'cancelled', 'reason', 'revoked', 'created_ms', now, 'ended_ms', now)
  if account == '' then
    redis.call('HDEL', record, 'account')
  elseif not state then
    redis.call('HSET', record, 'account', account)
  elseif r[2] and r[2] ~= account then -- what is cancelled for all stays so
    redis.call('HSET', record, 'revoked:' .. account, 1)
  end
  redis.call('EXPIRE', record, remember_s)
  return 'cancelled'
end
if account ~= '' and r[2] ~= account then return '' end
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
