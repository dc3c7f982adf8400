-- give_back: puts held postbacks whose POST has not begun back to the front of their lanes, no attempt counted. A loop that holds
-- nothing any more leaves the claimers.
--
-- KEYS RING_CLOCK, CLAIMERS, DONE, RECORD, LANE, CLAIMS
-- ARGV[2] token   ARGV[3..] ids, those of a lane in the order in which they were claimed
-- Returns how many went back.
-- Atomic: an id is in the claims or in its lane.
local token = ARGV[2]
local claims = CLAIMS .. token
local returned, lanes = {}, {} -- lane -> the ids that wait again, and the count of those that left the claims
for last = #ARGV, 3, -1000 do -- the last first, so that the first ends up in front
  local first = math.max(3, last - 999)
  local claimed = redis.call('HMGET', claims, unpack(ARGV, first, last))
  for i = last, first, -1 do
    if claimed[i - first + 1] == '0' then returned[#returned + 1] = ARGV[i] end
  end
end
call_many('HDEL', claims, returned)
for _, id in ipairs(returned) do
  local owner = redis.call('HMGET', RECORD .. id, 'account', 'group', 'cancel')
  if owner[1] then -- else somebody has deleted its record
    local lane = owner[1] .. '/' .. owner[2]
    local back = lanes[lane] or { count = 0 }
    lanes[lane], back.count = back, back.count + 1
    if owner[3] then
      finish(id, owner[1], 'cancelled', 'revoked', DONE)
    else
      redis.call('HSET', RECORD .. id, 'state', 'waiting')
      back[#back + 1] = id
    end
  end
end
local clocks = redis.call('HMGET', RING_CLOCK, 'trusted', 'suspect')
for lane, back in pairs(lanes) do
  call_many('LPUSH', LANE .. lane, back)
  unclaim(lane, true, back.count)
  make_ready(lane, nil, clocks)
end
if redis.call('EXISTS', claims) == 0 then redis.call('ZREM', CLAIMERS, token) end
publish_changes()
return #returned
