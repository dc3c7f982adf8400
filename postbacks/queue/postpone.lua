-- postpone: claimed postbacks whose POST has not been made, though their attempt was counted, are parked
-- for a while; the attempt is taken back. For an account that cannot be sent for just now.
--
-- KEYS PARKED, DONE, TOTALS, RECORD, CLAIMS
-- ARGV[2] token   ARGV[3] ms until it is tried again   ARGV[4] reason   ARGV[5..] ids
-- Returns how many were parked.
local token, delay_ms, reason = ARGV[2], tonumber(ARGV[3]), ARGV[4]
local claims = CLAIMS .. token
local parked, put_off, touched, gone = 0, 0, {}, leaving()
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
      put_off = put_off + 1
    end
    unclaim(lane)
    gone.note(id, r[1], r[4])
    touched[lane] = true
    parked = parked + 1
  end
end
for lane in pairs(touched) do make_ready(lane) end
gone.finish()
if put_off > 0 then redis.call('HINCRBY', TOTALS, 'put_off:' .. reason, put_off) end
return parked
