-- cancel: cancels a postback that waits or is parked; one whose POST is open is not sent again. An id that is not known yet is
-- remembered, so that the first message with it that comes is not sent (`accept`).
--
-- KEYS RECORD
-- ARGV[2] id   ARGV[3] seconds to remember an id that is not known yet
-- ARGV[4] the account whose postback is meant, '' for whosever it is
-- ARGV[5] ids of its lane that are looked at from each end
-- Returns the state the postback is in afterwards, '' if it is another account's.
-- Atomic: it is cancelled or its POST has begun.
local id, remember_s, account, search_max = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local record = RECORD .. id
local r = redis.call('HMGET', record, 'state', 'account', 'group', 'schema')
local state = r[1]
if not r[4] then -- no postback of this id yet
  redis.call('HSET', record, 'state', 'cancelled', 'reason', 'revoked', 'created_ms', now, 'ended_ms', now)
  if account == '' then
    redis.call('HDEL', record, 'account')
  elseif not state then
    redis.call('HSET', record, 'account', account)
  elseif r[2] and r[2] ~= account then -- what is cancelled for every account stays so
    redis.call('HSET', record, 'revoked:' .. account, 1)
  end
  redis.call('EXPIRE', record, remember_s)
  return 'cancelled'
end
if account ~= '' and r[2] ~= account then return '' end
state = cancel_postback(id, state, r[2], r[3], search_max)
publish_changes()
return state
