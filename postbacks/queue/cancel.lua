-- cancel: cancels a postback that waits or is parked; one whose POST is open is not sent again. An id that is not known yet is
-- remembered, so that the first message with it that comes is not sent (`accept`).
--
-- KEYS PARKED, QUARANTINE, CLAIMERS, DONE, RECORD, LANE
-- ARGV[2] id   ARGV[3] seconds to remember an id that is not known yet
-- ARGV[4] the account whose postback is meant, '' for whosever it is
-- ARGV[5] ids of its lane that are looked at from each end. One that stands deeper is cancelled all the same and ends when it
--   comes up (`end_cancelled`): to take it out would go over the whole lane.
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

-- Whether a loop of version 0.1.0 works, which does not name its version: it would skip such an id without ending it.
local function any_older_loop()
  for _, token in ipairs(redis.call('ZRANGE', CLAIMERS, 0, 999)) do
    if not string.find(token, '@', 1, true) then return true end
  end
  return false
end

if state == 'waiting' then
  local lane = LANE .. r[2] .. '/' .. r[3]
  if redis.call('ZREM', QUARANTINE, id) == 1 then
    -- it stands in no lane
  elseif redis.call('LPOS', lane, id, 'MAXLEN', search_max) then
    redis.call('LREM', lane, 1, id)
  elseif redis.call('LPOS', lane, id, 'RANK', -1, 'MAXLEN', search_max) then
    redis.call('LREM', lane, -1, id)
  elseif redis.call('LLEN', lane) > tonumber(search_max) then
    if not any_older_loop() then
      redis.call('HSET', record, 'state', 'cancelled', 'reason', 'revoked', 'ended_ms', now, 'in_lane', 1)
      changed[1] = id
      publish_changes()
      return 'cancelled'
    end
    redis.call('LREM', lane, 1, id)
  end
elseif state == 'parked' then
  redis.call('ZREM', PARKED, id)
elseif state == 'sending' then
  redis.call('HSET', record, 'cancel', 1)
  return state
else
  return state
end
finish(id, r[2], 'cancelled', 'revoked', DONE)
publish_changes()
return 'cancelled'
