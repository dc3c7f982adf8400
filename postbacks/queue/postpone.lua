-- postpone: parks claimed postbacks whose POST has not been made for a while, and takes their counted attempt back. For an account
-- that cannot be sent for just now.
--
-- KEYS PARKED, DONE, TOTALS, RECORD, CLAIMS
-- ARGV[2] token   ARGV[3] ms until they are tried again   ARGV[4] reason   ARGV[5..] ids
-- Returns how many left the claims: parked, or ended as they were cancelled meanwhile.
-- Atomic: an id is in the claims or parked.
local token, delay_ms, reason = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local claims = CLAIMS .. token
local unclaimed, parked, lanes, closing = 0, 0, {}, closing_posts()
for i = 5, #ARGV do
  local id = ARGV[i]
  if redis.call('HDEL', claims, id) == 1 then
    local record = RECORD .. id
    local r = redis.call('HMGET', record, 'account', 'group', 'cancel', 'endpoint')
    local lane = r[1] .. '/' .. r[2]
    redis.call('HINCRBY', record, 'attempts', -1)
    if r[3] then
      finish(id, r[1], 'cancelled', 'revoked', DONE)
    else
      redis.call('HSET', record, 'state', 'parked', 'next_ms', now + delay_ms, 'reason', reason)
      redis.call('ZADD', PARKED, now + delay_ms, id)
      parked = parked + 1
      changed[#changed + 1] = id
    end
    unclaim(lane)
    closing.add(id, r[1], r[4])
    lanes[lane] = true
    unclaimed = unclaimed + 1
  end
end
for lane in pairs(lanes) do make_ready(lane) end
closing.finish()
if parked > 0 then redis.call('HINCRBY', TOTALS, 'put_off:' .. reason, parked) end
publish_changes()
return unclaimed
