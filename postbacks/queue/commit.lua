-- commit: notes attempts and moves each postback on, in one step, so that a note and its parking
-- never part. An id whose claim was lost meanwhile is left alone: somebody else has it.
--
-- KEYS READY_TRUSTED, READY_SUSPECT, TURNS, PARKED, FAILING, CLAIMERS, DONE, DEAD, OPEN, LEDGER_BYTES, TOTALS
-- KEYS RECORD, LANE, PACE, CLAIMS
-- ARGV[2] token   ARGV[3] lease, ms   ARGV[4] transfers a lane may have at most
-- ARGV[5] seconds after which an idle lane's pace is forgotten
-- ARGV[6..] eight a postback: id, lane, verdict (delivered | parked | dead), attempt number,
--   attempt as JSON, countdown in ms, mood (ok | slow | failed |
--   shared: failed as well, and its own POST has not begun), reason
-- ARGV[last] what this batch adds to the totals, as a JSON object of name and number
-- Returns one row a postback {state or '', next_ms or 0}; '' means that the claim was lost, 'waiting' that the time-out
-- which it shared was that of an endpoint that its account has left: it is in its lane again.
local token, lease_ms, limit_max, forget_s = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local claims = CLAIMS .. token
local WIDTH, FIRST = 8, 6
local results, lanes, gone = {}, {}, leaving()
local settled, ended, left, moved, grown = {}, { [DONE] = {}, [DEAD] = {} }, {}, {}, {}

if redis.call('ZSCORE', CLAIMERS, token) then redis.call('ZADD', CLAIMERS, now + lease_ms, token) end

local ids, held_as = {}, {} -- id -> what it stands as in the claims
for at = FIRST, #ARGV - 1, WIDTH do ids[#ids + 1] = ARGV[at] end
for first = 1, #ids, 1000 do
  local found = redis.call('HMGET', claims, unpack(ids, first, math.min(first + 999, #ids)))
  for i, how in ipairs(found) do held_as[ids[first + i - 1]] = how end
end

-- as finish does; the index and the backlog are written once for all
local function note_end(id, lane, units, state, reason, index, number, attempt)
  redis.call('HSET', RECORD .. id, 'attempts', number, 'attempt:' .. number, attempt,
    'state', state, 'reason', reason, 'ended_ms', now)
  local entries = ended[index]
  entries[#entries + 1] = now
  entries[#entries + 1] = id
  local counts = left[lane] or { count = 0, units = 0 }
  counts.count, counts.units, left[lane] = counts.count + 1, counts.units + units, counts
end

-- a failure: its attempt makes the record larger. Returns the bytes that the record takes by now
local more_bytes = 0
local function note_failure(record, attempt)
  redis.call('HINCRBY', record, 'failures', 1)
  more_bytes = more_bytes + #attempt
  return redis.call('HINCRBY', record, 'bytes', #attempt)
end

-- a parked one counts by what its record takes by now
local function grow(record, lane, units, bytes)
  local more = units_in(bytes) - units
  if more <= 0 then return end
  redis.call('HSET', record, 'units', units + more)
  grown[lane] = (grown[lane] or 0) + more
end

-- whether a held postback's account sends elsewhere by now than when it was held
local function has_moved(id, lane)
  local account, group = string.match(lane, '^(.*)/([^/]+)$')
  local r = redis.call('HMGET', RECORD .. id, 'origin', 'url', 'endpoint', 'own')
  local _, endpoint = target_of(route_of(account), group, r[1], r[2], r[3], r[4])
  return endpoint ~= r[3]
end

for at = FIRST, #ARGV - 1, WIDTH do
  local id, lane, verdict, number = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local attempt, countdown_ms, mood, reason = ARGV[at + 4], tonumber(ARGV[at + 5]), ARGV[at + 6], ARGV[at + 7]
  local shared = mood == 'shared' and held_as[id] == '0'
  if mood == 'shared' then mood = 'failed' end
  local record = RECORD .. id
  local known = redis.call('HMGET', record, 'attempt:' .. number, 'cancel', 'next_ms', 'suspicion', 'reason', 'units')
  if known[1] or not held_as[id] then
    results[#results + 1] = { '', 0 }
  elseif shared and not known[2] and has_moved(id, lane) then
    held_as[id] = nil
    settled[#settled + 1] = id
    redis.call('HSET', record, 'state', 'waiting')
    moved[lane] = moved[lane] or {}
    table.insert(moved[lane], 1, id) -- the last one first, so that the first ends up in front
    results[#results + 1] = { 'waiting', 0 }
  else
    local account, next_ms, state = account_of(lane), 0, verdict
    local units = tonumber(known[6] or 1)
    held_as[id] = nil
    settled[#settled + 1] = id
    if verdict == 'delivered' then
      note_end(id, lane, units, state, '', DONE, number, attempt)
    elseif known[2] then
      note_failure(record, attempt)
      state = 'cancelled'
      note_end(id, lane, units, state, 'revoked', DONE, number, attempt)
    elseif verdict == 'parked' then
      grow(record, lane, units, note_failure(record, attempt))
      next_ms = now + countdown_ms
      -- noted in several batches, those that shared a time-out are due together: so they may share the next one
      if reason == 'connect_timeout' then next_ms = math.ceil(next_ms / 1000) * 1000 end
      redis.call('HSET', record, 'attempts', number, 'attempt:' .. number, attempt, 'state', 'parked',
        'next_ms', next_ms)
      if known[5] then redis.call('HDEL', record, 'reason') end -- of a postponement; the attempt says why by now
      redis.call('ZADD', PARKED, next_ms, id)
    else
      note_end(id, lane, units, 'dead', reason, DEAD, number, attempt)
      enter_dead(account, id, note_failure(record, attempt))
    end
    if known[4] then redis.call('HDEL', record, 'suspicion', 'alone_deaths', 'alone_lapses') end -- its process lives
    if known[3] and state ~= 'parked' then redis.call('HDEL', record, 'next_ms') end
    local tally = lanes[lane]
    if not tally then
      tally = { noted = 0, succeeded = 0, shared = 0 }
      lanes[lane] = tally
    end
    tally.noted, tally.mood = tally.noted + 1, mood
    if shared then tally.shared = tally.shared + 1 else gone.note(id, account, nil, reason) end
    tally.succeeded = mood == 'failed' and 0 or tally.succeeded + 1
    results[#results + 1] = { state, next_ms }
  end
end

if #settled > 0 then -- else the script has run before, and its answer was lost
  for name, count in pairs(cjson.decode(ARGV[#ARGV])) do redis.call('HINCRBY', TOTALS, name, count) end
end

call_many('HDEL', claims, settled)
for index, entries in pairs(ended) do call_many('ZADD', index, entries) end
for lane, more in pairs(grown) do redis.call('HINCRBY', OPEN, lane, more) end
for lane, counts in pairs(left) do leave_backlog(lane, counts.count, counts.units) end
if more_bytes > 0 then redis.call('INCRBY', LEDGER_BYTES, more_bytes) end

local turns = redis.call('HMGET', TURNS, 'trusted', 'suspect')
for lane, tally in pairs(lanes) do
  local pace = pace_of(lane)
  local failing, suspect = tally.mood == 'failed', tally.mood ~= 'ok'
  local was_failing, was_suspect = pace.failing, pace.suspect
  if suspect ~= pace.suspect or pace.new then -- the other ring has a time of its own
    redis.call('ZREM', pace.suspect and READY_SUSPECT or READY_TRUSTED, lane)
    pace.tag = 0
  end
  pace.claimed = math.max(0, pace.claimed - tally.noted)
  pace.limit = failing and 1 or math.min(limit_max, pace.limit + tally.succeeded)
  pace.failing, pace.suspect, pace.new = failing, suspect, false
  if pace.held > 0 then
    pace.held = pace.claimed > 0 and math.max(0, pace.held - tally.shared) or 0
    redis.call('HSET', PACE .. lane, 'held', pace.held)
  end
  redis.call('HSET', PACE .. lane, 'claimed', pace.claimed, 'limit', pace.limit,
    'failing', failing and 1 or 0, 'suspect', suspect and 1 or 0, 'tag', pace.tag)
  if suspect and not pace.behind then redis.call('HSET', PACE .. lane, 'behind', 1) end
  if failing then
    redis.call('ZADD', FAILING, was_failing and 'NX' or 'CH', now, lane)
    if not was_failing then -- nobody sends to some of the others any more, and their paces are forgotten
      local at = clock[2] % redis.call('ZCARD', FAILING)
      local other = redis.call('ZRANGE', FAILING, at, at)[1]
      if redis.call('HGET', PACE .. other, 'failing') ~= '1' then redis.call('ZREM', FAILING, other) end
    end
  elseif was_suspect then
    redis.call('ZREM', FAILING, lane)
  end
  if pace.claimed == 0 then redis.call('EXPIRE', PACE .. lane, forget_s) end
  make_ready(lane, pace, turns)
end
for lane, ids in pairs(moved) do
  call_many('LPUSH', LANE .. lane, ids)
  unclaim(lane, true, #ids)
  make_ready(lane)
end
gone.finish()
return results
