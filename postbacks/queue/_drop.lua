-- _drop: how a postback that has ended leaves the ledger. Stands behind _shared.lua where scripts.DROPPING names a script.

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
