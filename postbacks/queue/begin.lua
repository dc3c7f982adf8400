-- begin: held postbacks whose POST is about to begin; from here on an attempt counts.
--
-- ARGV[2] token   ARGV[3..] ids
-- Returns {now, rows}: rows as claim's begun rows without lane and suspect: {id, number, failures,
--   account, origin, code, created_ms, sequence, url, xml}. An id that is no longer claimed has no row.
local claims = CLAIMS .. ARGV[2]
local rows = {}
for i = 3, #ARGV do
  local id = ARGV[i]
  if redis.call('HEXISTS', claims, id) == 1 then
    local record = RECORD .. id
    local r = redis.call('HMGET', record, 'attempts', 'failures', 'account', 'origin', 'code',
      'created_ms', 'sequence', 'url', 'xml')
    local number = r[1] + 1
    redis.call('HSET', record, 'attempts', number, 'sent_ms', now)
    redis.call('HSET', claims, id, 1)
    rows[#rows + 1] = { id, number, r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9] }
  end
end
return { now, rows }
