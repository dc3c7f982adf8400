-- release: parked postbacks whose countdown has ended go to the end of their lanes.
--
-- ARGV[2] postbacks at most
-- Returns how many were released; as many as asked for means that there may be more.
-- Atomic: an id is parked or in its lane, never in both or in none.
local due = redis.call('ZRANGEBYSCORE', PARKED, '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))
local touched = {}
for _, id in ipairs(due) do
  redis.call('ZREM', PARKED, id)
  local owner = redis.call('HMGET', RECORD .. id, 'account', 'group')
  if owner[1] then
    local lane = owner[1] .. '/' .. owner[2]
    redis.call('HSET', RECORD .. id, 'state', 'waiting')
    redis.call('HDEL', RECORD .. id, 'next_ms')
    redis.call('RPUSH', LANE .. lane, id)
    touched[lane] = true
  end
end
for lane in pairs(touched) do make_ready(lane) end
return #due
