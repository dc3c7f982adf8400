-- accept: turns the first messages of the intake list into records and puts each postback in its one place.
-- The same postback sent again under its id is one postback: its record is left as it stands. Another one under an id
-- that is taken is kept as dead under an id of its own (`id_taken`), so that it does not vanish.
--
-- KEYS[last]  hash  postbacks:totals
-- ARGV[2] token of the tick   ARGV[3] schema version of records   ARGV[4] backlog allowed per account
-- ARGV[5] bytes of memory that a record takes beside its own texts (an estimate)
-- ARGV[6] how many messages of the intake these are   ARGV[7..] fourteen a postback: id, account, group, origin, code, url, endpoint, xml,
--   place (waiting | skipped | dead), reason, raw message (dead ones only),
--   due in ms since the epoch or '' (a caller's eta or countdown), digest (`ledger/digest.py`), own ('0' its URL is the account's,
--   '1' the call's own, '2' so and its account is not known)
-- Returns false if the lease was lost (nothing is changed), else one number a postback:
--   1 accepted, 0 known already, -1 dead because its account's backlog is full, -2 dead because its id is taken, 2 cancelled
--   before it came.
-- Atomic: they leave the intake in the same step.
local token, schema = ARGV[2], ARGV[3]
local backlog_max, overhead, messages = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local WIDTH, FIRST = 14, 7
local TOTALS = KEYS[#KEYS]

if redis.call('HGET', INTAKE_LEASE, 'token') ~= token then return false end

local results = {}
local joined, sequences, lanes = {}, {}, {} -- of an account: its backlog, its latest number; of a lane: ids
local parked, ended, total_bytes = {}, { [DONE] = {}, [DEAD] = {} }, 0
local unrouted, unrouted_bytes, of_left = {}, 0, 0
local counts = {} -- for the totals
local emptied = tonumber(redis.call('HGET', TURNS, 'emptied') or now)
local LATE_MS = 2500 -- ticks come every second
local NOWHERE = { unknown_account = true, no_url = true }

-- what an account's row of a hash counts, read once; written once, below
local function counted(counts, key, account)
  if not counts[account] then
    local before = tonumber(redis.call('HGET', key, account) or 0)
    counts[account] = { before = before, now = before }
  end
  return counts[account]
end

for at = FIRST, #ARGV, WIDTH do
  local id, account, group, origin = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local code, url, endpoint, xml = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  local place, reason, raw = ARGV[at + 8], ARGV[at + 9], ARGV[at + 10]
  local due_ms, digest = tonumber(ARGV[at + 11]), ARGV[at + 12]
  local record = RECORD .. id
  local result, first_id = 1, nil
  local known = redis.call('EXISTS', record) == 1 -- nearly none is
    and redis.call('HMGET', record, 'state', 'digest', 'schema', 'account', 'revoked:' .. account) or {}
  if known[1] and not known[3] then -- no postback: `cancel` remembers that the id is not to be sent
    redis.call('DEL', record)
    local revoked = (known[4] or account) == account or known[5]
    if group ~= '' and revoked then place, reason, result = 'cancelled', 'revoked', 2 end
  elseif known[1] and known[2] == digest then
    result = 0
  elseif known[1] then
    id, first_id = string.sub(redis.sha1hex(id .. digest), 1, 32), id -- `ledger/digest.py` makes the same of them
    record = RECORD .. id
    if redis.call('EXISTS', record) == 1 then
      result = 0 -- this one was kept before
    else
      result = -2
      if group ~= '' then place, reason = 'dead', 'id_taken' end -- else it is no postback, and its reason says why
      redis.call('HINCRBY', TOTALS, 'id_taken', 1)
    end
  end
  if result ~= 0 then
    if place == 'waiting' then
      if due_ms and due_ms > now then place = 'parked' end
      local backlog = counted(joined, BACKLOG, account)
      if group == 'mt' and backlog.now >= backlog_max then
        place, reason, result = 'dead', 'backlog_full', -1
      else
        backlog.now = backlog.now + 1
      end
    end
    local bytes = overhead + #xml + #url + #raw
    local sequence = counted(sequences, SEQUENCE, account)
    sequence.now = sequence.now + 1
    redis.call('HSET', record, 'schema', schema, 'state', place, 'account', account, 'group', group,
      'origin', origin, 'code', code, 'url', url, 'endpoint', endpoint, 'xml', xml, 'created_ms', now,
      'sequence', sequence.now, 'attempts', 0, 'failures', 0, 'bytes', bytes, 'digest', digest,
      'own', ARGV[at + 13])
    if first_id then redis.call('HSET', record, 'first_id', first_id) end
    if now - emptied > LATE_MS then redis.call('HSET', record, 'ready_ms', emptied) end -- it may have come just then
    local what = (place == 'waiting' or place == 'parked') and 'accepted:' .. group or place == 'skipped' and 'skipped'
      or place == 'dead' and result ~= -2 and 'refused:' .. (group == '' and 'unreadable' or reason)
    if what then counts[what] = (counts[what] or 0) + 1 end
    total_bytes = total_bytes + bytes
    if place == 'waiting' then
      local lane = account .. '/' .. group
      local ids = lanes[lane] or {}
      ids[#ids + 1], lanes[lane] = id, ids
    elseif place == 'parked' then
      redis.call('HSET', record, 'next_ms', due_ms, 'ready_ms', due_ms)
      parked[#parked + 1] = due_ms
      parked[#parked + 1] = id
    else
      redis.call('HSET', record, 'reason', reason, 'ended_ms', now)
      if raw ~= '' then redis.call('HSET', record, 'raw', raw) end
      local entries = ended[place == 'dead' and DEAD or DONE]
      entries[#entries + 1] = now
      entries[#entries + 1] = id
      if place == 'dead' and NOWHERE[reason] then
        unrouted[#unrouted + 1] = now
        unrouted[#unrouted + 1] = id
        unrouted_bytes = unrouted_bytes + bytes
        if redis.call('ZSCORE', LEFT, account) then of_left = of_left + 1 end
      end
    end
  end
  results[#results + 1] = result
end
for account, count in pairs(joined) do
  if count.now > count.before then redis.call('HINCRBY', BACKLOG, account, count.now - count.before) end
end
for account, count in pairs(sequences) do redis.call('HINCRBY', SEQUENCE, account, count.now - count.before) end
if total_bytes > 0 then redis.call('INCRBY', LEDGER_BYTES, total_bytes) end
call_many('ZADD', PARKED, parked)
for index, entries in pairs(ended) do call_many('ZADD', index, entries) end
if #unrouted > 0 then
  call_many('ZADD', UNROUTED, unrouted)
  redis.call('INCRBY', UNROUTED_BYTES, unrouted_bytes)
  redis.call('HINCRBY', TOTALS, 'unrouted', #unrouted / 2)
  if of_left > 0 then redis.call('HINCRBY', TOTALS, 'unrouted_of_left', of_left) end
end
for name, count in pairs(counts) do redis.call('HINCRBY', TOTALS, name, count) end
redis.call('LTRIM', INTAKE, messages, -1)
if redis.call('EXISTS', INTAKE) == 0 then
  redis.call('HDEL', INTAKE_LEASE, 'deaths', 'alone_deaths', 'alone') -- all of them are cleared
elseif messages > 0 then
  redis.call('HDEL', INTAKE_LEASE, 'alone_deaths', 'alone') -- another one is the first now
end
append(lanes)
return results
