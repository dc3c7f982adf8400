-- begin: held postbacks whose POST is about to begin; from here on an attempt counts. Asked again (the
-- answer was lost), it counts none: the attempt that it began the first time has not been sent.
--
-- ARGV[2] token   ARGV[3..] ids
-- Returns {now, rows}: rows as claim's begun rows without lane and suspect: {id, number, failures,
--   account, origin, code, created_ms, sequence, url, xml}. An id that is no longer claimed has no row.
local claims = CLAIMS .. ARGV[2]
local rows = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  local claimed = redis.call('HGET', claims, id)
  local record = RECORD .. id
  if claimed == '0' and redis.call('HEXISTS', record, 'cancel') == 1 then -- revoked while it was held
    local owner = redis.call('HMGET', record, 'account', 'group')
    redis.call('HDEL', claims, id)
    redis.call('HINCRBY', PACE .. owner[1] .. '/' .. owner[2], 'claimed', -1)
    finish(id, owner[1], 'cancelled', 'revoked', DONE)
  elseif claimed then
    local r = redis.call('HMGET', record, 'attempts', 'failures', 'account', 'origin', 'code',
      'created_ms', 'sequence', 'url', 'xml')
    local number = tonumber(r[1])
    if claimed == '0' then
      number = number + 1
      redis.call('HSET', record, 'attempts', number, 'sent_ms', now)
      redis.call('HSET', claims, id, 1)
    end
    rows[#rows + 1] = { id, number, r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9] }
  end
end
return { now, rows }
