-- release: parked postbacks whose countdown has ended go to the end of their lanes; one whose process died
-- while it was sent alone goes back to the quarantine.
--
-- ARGV[2] postbacks at most
-- Returns how many were released; as many as asked for means that there may be more.
-- Atomic: an id is parked or in its lane or in quarantine, never in two or in none.
local due = redis.call('ZRANGEBYSCORE', PARKED, '-inf', now, 'LIMIT', 0, tonumber(ARGV[2]))
local touched = {}
for _, id in ipairs(due) do
  redis.call('ZREM', PARKED, id)
  local owner = redis.call('HMGET', RECORD .. id, 'account', 'group', 'suspicion')
  if owner[1] then
    local lane = owner[1] .. '/' .. owner[2]
    redis.call('HSET', RECORD .. id, 'state', 'waiting')
    redis.call('HDEL', RECORD .. id, 'next_ms')
    if owner[3] then
      redis.call('ZADD', QUARANTINE, ALONE, id)
    else
      redis.call('RPUSH', LANE .. lane, id)
      touched[lane] = true
    end
  end
end
for lane in pairs(touched) do make_ready(lane) end
return #due
