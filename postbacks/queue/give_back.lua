-- give_back: held postbacks whose POST has not begun return to the front of their lanes, no attempt
-- counted. A loop that holds nothing any more leaves the list of claimers.
--
-- ARGV[2] token   ARGV[3..] ids, in the order they were claimed
-- Returns how many went back.
local token = ARGV[2]
local claims = CLAIMS .. token
local given, touched = 0, {}
for i = #ARGV, 3, -1 do -- the last first, so that the first ends up in front
  local id = ARGV[i]
  if redis.call('HGET', claims, id) == '0' then
    redis.call('HDEL', claims, id)
    local owner = redis.call('HMGET', RECORD .. id, 'account', 'group', 'cancel')
    local lane = owner[1] .. '/' .. owner[2]
    if owner[3] then
      finish(id, owner[1], 'cancelled', 'revoked', DONE)
    else
      redis.call('HSET', RECORD .. id, 'state', 'waiting')
      redis.call('LPUSH', LANE .. lane, id)
    end
    unclaim(lane, true)
    touched[lane] = true
    given = given + 1
  end
end
for lane in pairs(touched) do make_ready(lane) end
if redis.call('EXISTS', claims) == 0 then redis.call('ZREM', CLAIMERS, token) end
return given
