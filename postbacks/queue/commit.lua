-- commit: notes attempts and moves each postback on in the same step, so that a note and its parking never part. An id whose
-- claim was lost meanwhile is left alone: somebody else has it.
--
-- KEYS READY_TRUSTED, READY_SUSPECT, RING_CLOCK, PARKED, FAILING, CLAIMERS, DONE, DEAD, OPEN, LEDGER_BYTES, TOTALS
-- KEYS RECORD, LANE, LANE_STATE, CLAIMS
-- ARGV[2] token   ARGV[3] lease, ms   ARGV[4] POSTs that a lane may have open at most
-- ARGV[5] seconds after which an idle lane's state is forgotten
-- ARGV[6..] an AttemptRow each (rows.py): id, lane, verdict (delivered | parked | dead), number (of the attempt),
--   attempt (as JSON), countdown_ms, mood (ok | slow | failed |
--   shared: failed as well, and its own POST has not begun), reason
-- ARGV[last] what this batch adds to the totals, as a JSON object of name and number
-- Returns a CommittedRow a postback (rows.py), {state, next_ms}: '' if the claim was lost; 'waiting' if the time-out that it
--   shared was that of an endpoint which its account has left: it is in its lane again.
-- Atomic: the whole batch.
local token, lease_ms, limit_max, forget_s = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local claims = CLAIMS .. token
local WIDTH, FIRST = 8, 6
local results, lanes, closing = {}, {}, closing_posts()
local settled, ended, leaving, moved, grown = {}, { [DONE] = {}, [DEAD] = {} }, {}, {}, {}

if redis.call('ZSCORE', CLAIMERS, token) then redis.call('ZADD', CLAIMERS, now + lease_ms, token) end

local ids, claimed_as = {}, {} -- id -> what the claims say of it (keys.py)
for at = FIRST, #ARGV - 1, WIDTH do ids[#ids + 1] = ARGV[at] end
for first = 1, #ids, 1000 do
  local values = redis.call('HMGET', claims, unpack(ids, first, math.min(first + 999, #ids)))
  for i, value in ipairs(values) do claimed_as[ids[first + i - 1]] = value end
end

-- Ends a postback as `finish` does; index and backlog are written once for all of the batch. A delivered one has no reason.
local function note_end(id, lane, units, state, reason, index, number, attempt)
  redis.call('HSET', RECORD .. id, 'attempts', number, 'attempt:' .. number, attempt, 'state', state, 'ended_ms', now)
  if reason then redis.call('HSET', RECORD .. id, 'reason', reason) end
  local entries = ended[index]
  entries[#entries + 1] = now
  entries[#entries + 1] = id
  local counts = leaving[lane] or { count = 0, units = 0 }
  counts.count, counts.units, leaving[lane] = counts.count + 1, counts.units + units, counts
end

-- Counts a failure, whose attempt makes the record larger. Returns the bytes that the record takes by now.
local more_bytes = 0
local function note_failure(record, attempt)
  redis.call('HINCRBY', record, 'failures', 1)
  more_bytes = more_bytes + #attempt
  return redis.call('HINCRBY', record, 'bytes', #attempt)
end

-- Counts a parked postback by what its record takes by now.
local function grow(record, lane, units, bytes)
  local more = units_in(bytes) - units
  if more <= 0 then return end
  redis.call('HSET', record, 'units', units + more)
  grown[lane] = (grown[lane] or 0) + more
end

-- Whether a held postback's account sends elsewhere by now than when it was held.
local function has_moved(id, lane)
  local account, group = string.match(lane, '^(.*)/([^/]+)$')
  local r = redis.call('HMGET', RECORD .. id, 'origin', 'url', 'endpoint', 'own')
  local _, endpoint = target_of(route_of(account), group, r[1], r[2], r[3], r[4])
  return endpoint ~= r[3]
end

for at = FIRST, #ARGV - 1, WIDTH do
  local id, lane, verdict, number = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local attempt, countdown_ms, mood, reason = ARGV[at + 4], tonumber(ARGV[at + 5]), ARGV[at + 6], ARGV[at + 7]
  local shared = mood == 'shared' and claimed_as[id] == '0'
  if mood == 'shared' then mood = 'failed' end
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'attempt:' .. number, 'cancel', 'next_ms', 'suspicion', 'reason', 'units')
  if r[1] or not claimed_as[id] then
    results[#results + 1] = { '', 0 }
  elseif shared and not r[2] and has_moved(id, lane) then
    claimed_as[id] = nil
    settled[#settled + 1] = id
    redis.call('HSET', record, 'state', 'waiting')
    moved[lane] = moved[lane] or {}
    table.insert(moved[lane], 1, id) -- the last first, so that the first ends up in front
    results[#results + 1] = { 'waiting', 0 }
  else
    local account, next_ms, state = account_of(lane), 0, verdict
    local units = tonumber(r[6] or 1)
    claimed_as[id] = nil
    settled[#settled + 1] = id
    if verdict == 'delivered' then
      note_end(id, lane, units, state, nil, DONE, number, attempt)
    elseif r[2] then
      note_failure(record, attempt)
      state = 'cancelled'
      note_end(id, lane, units, state, 'revoked', DONE, number, attempt)
    elseif verdict == 'parked' then
      grow(record, lane, units, note_failure(record, attempt))
      next_ms = now + countdown_ms
      -- what shared a time-out and is noted in several batches is due together, so that it may share the next one
      if reason == 'connect_timeout' then next_ms = math.ceil(next_ms / 1000) * 1000 end
      redis.call('HSET', record, 'attempts', number, 'attempt:' .. number, attempt, 'state', 'parked',
        'next_ms', next_ms)
      redis.call('ZADD', PARKED, next_ms, id)
    else
      note_end(id, lane, units, 'dead', reason, DEAD, number, attempt)
      add_to_dead(account, id, note_failure(record, attempt))
    end
    changed[#changed + 1] = id
    -- of a postponement; from now on the attempt says why
    if r[5] and (state == 'parked' or state == 'delivered') then redis.call('HDEL', record, 'reason') end
    if r[4] then redis.call('HDEL', record, 'suspicion', 'alone_deaths', 'alone_lapses') end -- its process lives
    if r[3] and state ~= 'parked' then redis.call('HDEL', record, 'next_ms') end
    local counts = lanes[lane]
    if not counts then
      counts = { noted = 0, succeeded = 0, shared = 0 }
      lanes[lane] = counts
    end
    counts.noted, counts.mood = counts.noted + 1, mood
    if shared then counts.shared = counts.shared + 1 else closing.add(id, account, nil, reason) end
    counts.succeeded = mood == 'failed' and 0 or counts.succeeded + 1
    results[#results + 1] = { state, next_ms }
  end
end

if #settled > 0 then -- else the script has run before, and its answer was lost
  for name, count in pairs(cjson.decode(ARGV[#ARGV])) do redis.call('HINCRBY', TOTALS, name, count) end
end

call_many('HDEL', claims, settled)
for index, entries in pairs(ended) do call_many('ZADD', index, entries) end
for lane, more in pairs(grown) do redis.call('HINCRBY', OPEN, lane, more) end
for lane, counts in pairs(leaving) do leave_backlog(lane, counts.count, counts.units) end
if more_bytes > 0 then redis.call('INCRBY', LEDGER_BYTES, more_bytes) end

local clocks = redis.call('HMGET', RING_CLOCK, 'trusted', 'suspect')
for lane, counts in pairs(lanes) do
  local lane_state = lane_state_of(lane)
  local failing, suspect = counts.mood == 'failed', counts.mood ~= 'ok'
  local was_failing, was_suspect = lane_state.failing, lane_state.suspect
  if suspect ~= lane_state.suspect or lane_state.new then -- the other ready set has a time of its own
    redis.call('ZREM', lane_state.suspect and READY_SUSPECT or READY_TRUSTED, lane)
    lane_state.virtual_time = 0
  end
  lane_state.claimed = math.max(0, lane_state.claimed - counts.noted)
  lane_state.limit = failing and 1 or math.min(limit_max, lane_state.limit + counts.succeeded)
  lane_state.failing, lane_state.suspect, lane_state.new = failing, suspect, false
  if lane_state.held > 0 then
    lane_state.held = lane_state.claimed > 0 and math.max(0, lane_state.held - counts.shared) or 0
    redis.call('HSET', LANE_STATE .. lane, 'held', lane_state.held)
  end
  redis.call('HSET', LANE_STATE .. lane, 'claimed', lane_state.claimed, 'limit', lane_state.limit,
    'failing', failing and 1 or 0, 'suspect', suspect and 1 or 0, 'tag', lane_state.virtual_time)
  if suspect and not lane_state.behind then redis.call('HSET', LANE_STATE .. lane, 'behind', 1) end
  if failing then
    redis.call('ZADD', FAILING, was_failing and 'NX' or 'CH', now, lane)
    if not was_failing then -- drop one of the others if its state is forgotten, as nobody sends for it any more
      local at = clock[2] % redis.call('ZCARD', FAILING)
      local other = redis.call('ZRANGE', FAILING, at, at)[1]
      if redis.call('HGET', LANE_STATE .. other, 'failing') ~= '1' then redis.call('ZREM', FAILING, other) end
    end
  elseif was_suspect then
    redis.call('ZREM', FAILING, lane)
  end
  if lane_state.claimed == 0 then redis.call('EXPIRE', LANE_STATE .. lane, forget_s) end
  make_ready(lane, lane_state, clocks)
end
for lane, ids in pairs(moved) do
  call_many('LPUSH', LANE .. lane, ids)
  unclaim(lane, true, #ids)
  make_ready(lane)
end
closing.finish()
publish_changes()
return results
