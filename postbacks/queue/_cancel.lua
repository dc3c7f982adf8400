-- _cancel: how a postback that waits or is parked is cancelled, and one whose POST is open is not sent again.
--
-- KEYS PARKED, QUARANTINE, CLAIMERS, DONE, RECORD, LANE

-- Whether a loop of version 0.1.0 works, which does not name its version: it would skip an id deep inside its lane without
-- ending it.
local function any_older_loop()
  for _, token in ipairs(redis.call('ZRANGE', CLAIMERS, 0, 999)) do
    if not string.find(token, '@', 1, true) then return true end
  end
  return false
end

-- Takes an id out of its lane. `search_max` ids of it are looked at from each end: one that stands deeper stays there and ends
-- when it comes up (`end_cancelled`), as to take it out would go over the whole lane. Returns false for such a one.
local function take_from_lane(id, lane, search_max)
  if redis.call('ZREM', QUARANTINE, id) == 1 then
    return true -- it stands in no lane
  elseif redis.call('LPOS', lane, id, 'MAXLEN', search_max) then
    redis.call('LREM', lane, 1, id)
  elseif redis.call('LPOS', lane, id, 'RANK', -1, 'MAXLEN', search_max) then
    redis.call('LREM', lane, -1, id)
  elseif redis.call('LLEN', lane) > tonumber(search_max) then
    if not any_older_loop() then return false end
    redis.call('LREM', lane, 1, id)
  end
  return true
end

-- Cancels a postback that the ledger has. Returns the state that it is in afterwards.
local function cancel_postback(id, state, account, group, search_max)
  local record = RECORD .. id
  if state == 'waiting' then
    if not take_from_lane(id, LANE .. account .. '/' .. group, search_max) then
      redis.call('HSET', record, 'state', 'cancelled', 'reason', 'revoked', 'ended_ms', now, 'in_lane', 1)
      changed[#changed + 1] = id
      return 'cancelled'
    end
  elseif state == 'parked' then
    redis.call('ZREM', PARKED, id)
  elseif state == 'sending' then
    redis.call('HSET', record, 'cancel', 1)
    return state
  else
    return state
  end
  finish(id, account, 'cancelled', 'revoked', DONE)
  return 'cancelled'
end
