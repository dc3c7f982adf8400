-- _drop: how a postback that has ended leaves the ledger.
--
-- KEYS DEAD, DEAD_BYTES, LEDGER_BYTES, UNROUTED, UNROUTED_BYTES, RECORD, DEAD_OF, STUBS_OF

-- Forgets a done or dead postback; `index` is DONE or DEAD. Returns the bytes that it was counted with.
local function drop(index, id)
  local r = redis.call('HMGET', RECORD .. id, 'bytes', 'account')
  local bytes, account = tonumber(r[1] or 0), r[2]
  redis.call('DEL', RECORD .. id)
  redis.call('ZREM', index, id)
  redis.call('DECRBY', LEDGER_BYTES, bytes)
  if index == DEAD and account then remove_from_dead(account, id, bytes) end
  if index == DEAD and redis.call('ZREM', UNROUTED, id) == 1 then redis.call('DECRBY', UNROUTED_BYTES, bytes) end
  return bytes
end

-- Returns the first id of a set that is dropped by its score, nil where there is none, and whether it is an opt-out.
local function first_of(set)
  local first = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
  return first[1], tonumber(first[2] or 0) >= OPT_OUTS_FROM
end

-- Returns the dead postback of an account that goes first, and whether it is an opt-out; nil where it has none. Its stubs go
-- first, the oldest before the others, then what has its document; opt-outs in the same order behind all others. Ids that are
-- not dead any more, as a worker of version 0.1.0 has sent them again or dropped them, leave its dead with the mean of their
-- bytes, `at_most` a call.
local function oldest_dead_of(account, at_most)
  local dead, stubs = DEAD_OF .. account, STUBS_OF .. account
  for _ = 1, at_most do
    local id, is_opt_out = first_of(stubs)
    if not id or is_opt_out then
      local other, other_is_opt_out = first_of(dead)
      if other and not (id and other_is_opt_out) then id, is_opt_out = other, other_is_opt_out end
    end
    if not id then
      redis.call('ZREM', DEAD_BYTES, account)
      return nil
    end
    if redis.call('ZSCORE', DEAD, id) then return id, is_opt_out end
    local count = redis.call('ZCARD', dead) + redis.call('ZCARD', stubs)
    remove_from_dead(account, id, math.floor(tonumber(redis.call('ZSCORE', DEAD_BYTES, account) or 0) / count))
  end
end
