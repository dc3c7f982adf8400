-- reap: postbacks of a loop whose lease ran out return to the front of their lanes. A POST that may
-- have begun stands in the ledger as an attempt with the outcome unknown.
--
-- KEYS[last]  hash  totals of all workers
-- ARGV[2] postbacks at most
-- Returns how many were taken back; as many as asked for means that there may be more.
local at_most = tonumber(ARGV[2])
local token, claims, entries
repeat -- loops that died with nothing in their hands are gone over at once
  local expired = redis.call('ZRANGEBYSCORE', CLAIMERS, '-inf', now, 'LIMIT', 0, 1)
  if #expired == 0 then return 0 end
  token = expired[1]
  claims = CLAIMS .. token
  -- all of a loop at once, so that their order is kept; only of a very large one a part
  if redis.call('HLEN', claims) <= 5 * at_most then
    entries = redis.call('HGETALL', claims)
  else
    entries = redis.call('HRANDFIELD', claims, at_most, 'WITHVALUES')
  end
  if #entries == 0 then redis.call('ZREM', CLAIMERS, token) end
until #entries > 0

local orphans = {}
for i = 1, #entries, 2 do
  local r = redis.call('HMGET', RECORD .. entries[i], 'account', 'group', 'sequence', 'attempts', 'sent_ms', 'cancel')
  if r[1] then
    orphans[#orphans + 1] = { id = entries[i], begun = entries[i + 1] == '1', account = r[1],
      lane = r[1] .. '/' .. r[2], sequence = tonumber(r[3]), attempts = r[4], sent_ms = tonumber(r[5]), cancel = r[6] }
  else
    redis.call('HDEL', claims, entries[i]) -- its record was deleted by hand: it must not stop every tick
  end
end
-- the youngest first, so that the oldest ends up in front
table.sort(orphans, function(a, b) return a.sequence > b.sequence end)

local touched = {}
for _, orphan in ipairs(orphans) do
  local record = RECORD .. orphan.id
  redis.call('HDEL', claims, orphan.id)
  if orphan.begun then
    redis.call('HSET', record, 'attempt:' .. orphan.attempts, cjson.encode({
      number = tonumber(orphan.attempts), at_ms = orphan.sent_ms, outcome = 'unknown',
      detail = 'the worker died or lost its lease before it noted the answer' }))
    redis.call('HINCRBY', KEYS[#KEYS], 'attempt:unknown', 1)
  end
  if orphan.cancel then
    finish(orphan.id, orphan.account, 'cancelled', 'revoked', DONE)
  else
    redis.call('HSET', record, 'state', 'waiting')
    redis.call('LPUSH', LANE .. orphan.lane, orphan.id)
  end
  redis.call('HINCRBY', PACE .. orphan.lane, 'claimed', -1)
  touched[orphan.lane] = true
end
for lane in pairs(touched) do make_ready(lane) end
if redis.call('EXISTS', claims) == 0 then redis.call('ZREM', CLAIMERS, token) end
return #entries / 2
