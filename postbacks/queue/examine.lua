-- examine: an examiner takes postbacks out of the quarantine, under its lease: a few at a time, or one that is
-- to be tried alone while the examiner has nothing else in flight.
--
-- ARGV[2] token   ARGV[3] lease, ms   ARGV[4] postbacks that are a few
-- Returns {now, begun}: rows as claim's begun rows.
-- Atomic: an id is in the quarantine or in the claims.
local token, lease_ms, few = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local claims = CLAIMS .. token
local begun = {}

redis.call('ZADD', CLAIMERS, now + lease_ms, token)

local function begin(id, how)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'state', 'attempts', 'failures', 'account', 'origin', 'code',
    'created_ms', 'sequence', 'url', 'xml', 'group')
  if r[1] ~= 'waiting' then return end
  local number, lane = r[2] + 1, r[4] .. '/' .. r[11]
  redis.call('HSET', record, 'state', 'sending', 'attempts', number, 'sent_ms', now)
  redis.call('HSET', claims, id, how)
  redis.call('HINCRBY', PACE .. lane, 'claimed', 1)
  redis.call('PERSIST', PACE .. lane) -- what counts claims is not forgotten while there are any
  begun[#begun + 1] = { id, lane, 1, number, r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10] }
end

local in_flight = redis.call('HVALS', claims)
if in_flight[1] == '2' then return { now, begun } end -- it is alone
while #in_flight + #begun < few do
  local first = redis.call('ZRANGE', QUARANTINE, 0, 0, 'WITHSCORES')
  if #first == 0 then break end
  local alone = tonumber(first[2]) == ALONE
  if alone and #in_flight + #begun > 0 then break end
  redis.call('ZREM', QUARANTINE, first[1])
  begin(first[1], alone and '2' or '1')
  if alone and #begun > 0 then break end
end
return { now, begun }
