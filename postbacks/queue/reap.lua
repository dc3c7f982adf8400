-- reap: takes back the postbacks of a loop whose lease ran out, most likely as its process died. What was only held returns to
-- the front of its lane. A POST that may have begun stands in the ledger as an attempt with the outcome unknown, and its
-- postback may be what killed the process: it goes to the quarantine, where it is tried with a few others, and if these die
-- too, alone. One that was in flight alone waits before it is tried again; after so many such deaths it is dead, as poison.
--
-- KEYS RING_CLOCK, PARKED, QUARANTINE, CLAIMERS, DONE, DEAD, TOTALS, RECORD, LANE, CLAIMS
-- ARGV[2] postbacks at most   ARGV[3] ms that one waits whose process died while it was alone
-- ARGV[4] such deaths after which one is dead   ARGV[5] leases that ran out while one was alone, its process not seen to die,
--   after which it is dead: a lease may also be lost to a broker that is away
-- Returns how many were taken back; as many as asked for means that there may be more.
-- Atomic: an id is in the claims or in its next place.
local at_most, pause_ms = tonumber(ARGV[2]), tonumber(ARGV[3])
local deaths_max, lapses_max = tonumber(ARGV[4]), tonumber(ARGV[5])
local token, claims, entries, seen_to_die
repeat -- past loops that died with nothing in their claims
  local expired = redis.call('ZRANGEBYSCORE', CLAIMERS, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 1)
  if #expired == 0 then return 0 end
  token, seen_to_die = expired[1], tonumber(expired[2]) == 0
  claims = CLAIMS .. token
  -- all of a loop at once, so that their order is kept; a part only of a very large one
  if redis.call('HLEN', claims) <= 5 * at_most then
    entries = redis.call('HGETALL', claims)
  else
    entries = redis.call('HRANDFIELD', claims, at_most, 'WITHVALUES')
  end
  if #entries == 0 then redis.call('ZREM', CLAIMERS, token) end
until #entries > 0

local orphans = {}
for i = 1, #entries, 2 do
  local r = redis.call('HMGET', RECORD .. entries[i], 'account', 'group', 'sequence', 'attempts', 'sent_ms', 'cancel',
    'suspicion', 'endpoint')
  if r[1] then
    orphans[#orphans + 1] = { id = entries[i], begun = entries[i + 1] ~= '0', alone = entries[i + 1] == '2',
      account = r[1], lane = r[1] .. '/' .. r[2], sequence = tonumber(r[3]), attempts = r[4],
      sent_ms = tonumber(r[5]), cancel = r[6], quarantine_level = r[7], endpoint = r[8] }
  else
    redis.call('HDEL', claims, entries[i]) -- its record was deleted by hand: it must not stop every tick
  end
end
-- the youngest first, so that the oldest ends up in front
table.sort(orphans, function(a, b) return a.sequence > b.sequence end)

local unknown = 0
-- Notes that the outcome of a POST is not known.
local function note_unknown(orphan, detail)
  redis.call('HSET', RECORD .. orphan.id, 'attempt:' .. orphan.attempts, cjson.encode({
    number = tonumber(orphan.attempts), at_ms = orphan.sent_ms, outcome = 'unknown', detail = detail }))
  unknown = unknown + 1
end

-- Puts a postback whose POST may have killed its process into the quarantine, or lets it wait, or ends it as poison.
local function quarantine(orphan)
  local record = RECORD .. orphan.id
  if not orphan.alone then
    local score = lane_state_of(orphan.lane).suspect and FEW_SLOW or FEW
    if orphan.quarantine_level then score = ALONE end -- it was in flight when a few died
    redis.call('HSET', record, 'state', 'waiting', 'suspicion', score == ALONE and 'alone' or 'few')
    redis.call('ZADD', QUARANTINE, score, orphan.id)
    changed[#changed + 1] = orphan.id
    return note_unknown(orphan, 'the worker died or lost its lease before it noted the answer')
  end
  local count, most
  if seen_to_die then
    count, most = redis.call('HINCRBY', record, 'alone_deaths', 1), deaths_max
    note_unknown(orphan, 'the process died while it sent this postback alone: death ' .. count .. ' of ' .. most)
  else
    count, most = redis.call('HINCRBY', record, 'alone_lapses', 1), lapses_max
    note_unknown(orphan, 'its lease ran out while it was sent alone: ' .. count .. ' of ' .. most)
  end
  if count >= most then
    redis.call('HINCRBY', TOTALS, 'dead', 1)
    return finish(orphan.id, orphan.account, 'dead', 'poison', DEAD)
  end
  redis.call('HSET', record, 'state', 'parked', 'next_ms', now + pause_ms)
  redis.call('ZADD', PARKED, now + pause_ms, orphan.id)
  changed[#changed + 1] = orphan.id
end

local lanes, closing = {}, closing_posts()
for _, orphan in ipairs(orphans) do
  redis.call('HDEL', claims, orphan.id)
  if orphan.cancel then
    if orphan.begun then note_unknown(orphan, 'the worker died or lost its lease before it noted the answer') end
    finish(orphan.id, orphan.account, 'cancelled', 'revoked', DONE)
  elseif orphan.begun then
    quarantine(orphan)
  else
    redis.call('HSET', RECORD .. orphan.id, 'state', 'waiting')
    redis.call('LPUSH', LANE .. orphan.lane, orphan.id)
  end
  unclaim(orphan.lane, not orphan.begun)
  if orphan.begun then closing.add(orphan.id, orphan.account, orphan.endpoint) end
  lanes[orphan.lane] = true
end
if unknown > 0 then redis.call('HINCRBY', TOTALS, 'attempt:unknown', unknown) end
local clocks = redis.call('HMGET', RING_CLOCK, 'trusted', 'suspect')
for lane in pairs(lanes) do make_ready(lane, nil, clocks) end
closing.finish()
if redis.call('EXISTS', claims) == 0 then redis.call('ZREM', CLAIMERS, token) end
publish_changes()
return #entries / 2
