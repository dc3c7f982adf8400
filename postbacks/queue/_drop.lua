-- _drop: how a postback that has ended leaves the ledger. Stands behind _shared.lua where scripts.DROPPING names a script.
--
-- KEYS DEAD, DEAD_BYTES, LEDGER_BYTES, UNROUTED, UNROUTED_BYTES, RECORD, DEAD_OF, STUBS_OF

-- Forgets a done or dead one (index is DONE or DEAD); returns the bytes that it was counted with.
local function drop(index, id)
  local r = redis.call('HMGET', RECORD .. id, 'bytes', 'account')
  local bytes = tonumber(r[1] or 0)
  redis.call('DEL', RECORD .. id)
  redis.call('ZREM', index, id)
  redis.call('DECRBY', LEDGER_BYTES, bytes)
  if index == DEAD and r[2] then leave_dead(r[2], id, bytes) end
  if index == DEAD and redis.call('ZREM', UNROUTED, id) == 1 then redis.call('DECRBY', UNROUTED_BYTES, bytes) end
  return bytes
end

-- The oldest dead of an account, its stubs first; nil where it has none. Ids that are not dead any more, as a worker of
-- version 0.1.0 has sent them again or dropped them, leave its dead, with the mean of their bytes; `most` at a call.
local function oldest_dead_of(account, most)
  local of, stubs = DEAD_OF .. account, STUBS_OF .. account
  for _ = 1, most do
    local id = redis.call('ZRANGE', stubs, 0, 0)[1] or redis.call('ZRANGE', of, 0, 0)[1]
    if not id then
      redis.call('ZREM', DEAD_BYTES, account)
      return nil
    end
    if redis.call('ZSCORE', DEAD, id) then return id end
    local count = redis.call('ZCARD', of) + redis.call('ZCARD', stubs)
    leave_dead(account, id, math.floor(tonumber(redis.call('ZSCORE', DEAD_BYTES, account) or 0) / count))
  end
end
