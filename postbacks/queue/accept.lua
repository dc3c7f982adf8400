-- accept: turns the first messages of the intake list into records and puts each postback into its one place.
-- The same postback under its id again is one postback: its record stays as it is. Another one under an id that is taken is kept
-- as dead under an id of its own (`id_taken`), so that it does not vanish. Each group of an account may have so many postbacks
-- open, in units: one, and one more for each further 2 KB of its record. What comes beyond that is dead at once: with its
-- document up to a share of the memory, then as a stub. Opt-outs may have a tenth more of both. The same postback again under a
-- stub's id takes the stub's place.
--
-- KEYS INTAKE, INTAKE_LEASE, RING_CLOCK, PARKED, SEQUENCE, BACKLOG, DONE, DEAD, DEAD_BYTES, OPEN, LEDGER_BYTES, UNROUTED
-- KEYS UNROUTED_BYTES, LEFT, TOTALS, RECORD
-- ARGV[2] token of the tick   ARGV[3] schema version of records   ARGV[4] units that a group of an account may have open
-- ARGV[5] bytes of memory that a record takes beside its own texts (an estimate)   ARGV[6] bytes that a stub takes
-- ARGV[7] bytes that an account's dead may take before what comes beyond its limit is kept as a stub
-- ARGV[8] how many messages of the intake these are
-- ARGV[9..] an AcceptRow each (rows.py): id, account, group, origin, code, url, endpoint, xml, state, reason, message, due_ms,
--   digest, own, opt_out
-- Returns false if the lease was lost (nothing is changed), else a number a postback (`ledger/states.py`):
--   1 accepted, 0 known already, -1 dead because its group has too many open, -2 dead because its id is taken, -3 as -1 and
--   without its document, 2 cancelled before it came.
-- Atomic: the messages leave the intake in the same step.
local token, schema = ARGV[2], ARGV[3]
local units_max, overhead, stub_bytes = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local documents_max, messages = tonumber(ARGV[7]), tonumber(ARGV[8])
local WIDTH, FIRST = 15, 9

if redis.call('HGET', INTAKE_LEASE, 'token') ~= token then return false end

local results = {}
local backlogs, sequences = {}, {} -- account -> its backlog, its latest number
local lanes, open_units = {}, {} -- lane -> ids, units
local stubs = 0
local parked, ended, total_bytes = {}, { [DONE] = {}, [DEAD] = {} }, 0
local unrouted, unrouted_bytes, of_left = {}, 0, 0
local counts = {} -- for the totals
local emptied = tonumber(redis.call('HGET', RING_CLOCK, 'emptied') or now)
local LATE_MS = 2500 -- ticks come every second
local FOR_OPT_OUTS = 1.1 -- of what others may have
local UNROUTED_REASONS = { unknown_account = true, no_url = true }

-- An account's number in a hash: read once, and written once below.
local function number_of(numbers, key, account)
  if not numbers[account] then
    local before = tonumber(redis.call('HGET', key, account) or 0)
    numbers[account] = { before = before, now = before }
  end
  return numbers[account]
end

-- The units that a lane has open. What a worker of version 0.1.0 has left in the count ends with the account's backlog.
local function units_of(lane, backlog)
  if not open_units[lane] then
    local before = backlog.before == 0 and 0 or math.max(0, tonumber(redis.call('HGET', OPEN, lane) or 0))
    open_units[lane] = { before = before, now = before }
  end
  return open_units[lane]
end

for at = FIRST, #ARGV, WIDTH do
  local id, account, group, origin, code, url, endpoint, xml, state, reason, message, due_ms, digest, own, opt_out =
    unpack(ARGV, at, at + WIDTH - 1)
  due_ms = tonumber(due_ms)
  local record = RECORD .. id
  local result, first_id = 1, nil
  local r = redis.call('EXISTS', record) == 1 -- nearly none does
    and redis.call('HMGET', record, 'state', 'digest', 'schema', 'account', 'revoked:' .. account, 'stub') or {}
  if r[1] and not r[3] then -- no postback: `cancel` remembers that the id is not to be sent
    redis.call('DEL', record)
    local revoked = (r[4] or account) == account or r[5]
    if group ~= '' and revoked then state, reason, result = 'cancelled', 'revoked', 2 end
  elseif r[1] and r[2] == digest and r[6] then
    drop(DEAD, id) -- the stub of what has come again
  elseif r[1] and r[2] == digest then
    result = 0
  elseif r[1] then
    id, first_id = string.sub(redis.sha1hex(id .. digest), 1, 32), id -- `ledger/digest.py` makes the same of them
    record = RECORD .. id
    if redis.call('EXISTS', record) == 1 then
      result = 0 -- this one was kept before
    else
      result = -2
      if group ~= '' then state, reason = 'dead', 'id_taken' end -- else it is no postback, and its reason says why
      redis.call('HINCRBY', TOTALS, 'id_taken', 1)
    end
  end
  if result ~= 0 then
    local bytes = overhead + #xml + #url + #message + #reason
    local units = units_in(bytes)
    if state == 'waiting' then
      if due_ms and due_ms > now then state = 'parked' end
      local backlog = number_of(backlogs, BACKLOG, account)
      local of_group = units_of(account .. '/' .. group, backlog)
      local of_others = opt_out == '1' and FOR_OPT_OUTS or 1
      if of_group.now + units > units_max * of_others then
        state, reason, result = 'dead', 'backlog_full', -1
        local dead_bytes = tonumber(redis.call('ZSCORE', DEAD_BYTES, account) or 0)
        if dead_bytes + bytes > documents_max * of_others then result, bytes, stubs = -3, stub_bytes, stubs + 1 end
      else
        backlog.now, of_group.now = backlog.now + 1, of_group.now + units
      end
    end
    if result == -3 then
      redis.call('HSET', record, 'state', state, 'attempts', 0, 'failures', 0, 'account', account, 'group', group,
        'bytes', bytes, 'origin', origin, 'code', code, 'created_ms', now, 'digest', digest, 'stub', 1, 'schema', schema)
    else
      local sequence = number_of(sequences, SEQUENCE, account)
      sequence.now = math.max(sequence.now + 1, now) -- so no number is given twice, even if the broker is restored from older data
      -- a listpack is searched from its first field on: those that are read and written most come first
      redis.call('HSET', record, 'state', state, 'attempts', 0, 'failures', 0, 'account', account, 'group', group,
        'bytes', bytes, 'origin', origin, 'code', code, 'url', url, 'endpoint', endpoint, 'own', own,
        'created_ms', now, 'sequence', sequence.now, 'digest', digest, 'schema', schema, 'xml', xml)
      if units > 1 then redis.call('HSET', record, 'units', units) end
    end
    if first_id then redis.call('HSET', record, 'first_id', first_id) end
    if opt_out == '1' then redis.call('HSET', record, 'opt_out', 1) end
    -- ticks were late: it may have come as early as when one last found nothing to take in
    if now - emptied > LATE_MS and result ~= -3 then redis.call('HSET', record, 'ready_ms', emptied) end
    local counter = (state == 'waiting' or state == 'parked') and 'accepted:' .. group or state == 'skipped' and 'skipped'
      or state == 'dead' and result ~= -2 and 'refused:' .. (group == '' and 'unreadable' or reason)
    if counter then counts[counter] = (counts[counter] or 0) + 1 end
    changed[#changed + 1] = id
    total_bytes = total_bytes + bytes
    if state == 'waiting' then
      local lane = account .. '/' .. group
      local ids = lanes[lane] or {}
      ids[#ids + 1], lanes[lane] = id, ids
    elseif state == 'parked' then
      redis.call('HSET', record, 'next_ms', due_ms, 'ready_ms', due_ms)
      parked[#parked + 1] = due_ms
      parked[#parked + 1] = id
    else
      redis.call('HSET', record, 'reason', reason, 'ended_ms', now)
      if message ~= '' then redis.call('HSET', record, 'raw', message) end
      local entries = ended[state == 'dead' and DEAD or DONE]
      entries[#entries + 1] = now
      entries[#entries + 1] = id
      if state == 'dead' and not UNROUTED_REASONS[reason] then
        add_to_dead(account, id, bytes, result == -3)
      elseif state == 'dead' then
        unrouted[#unrouted + 1] = opt_out == '1' and now + OPT_OUTS_FROM or now
        unrouted[#unrouted + 1] = id
        unrouted_bytes = unrouted_bytes + bytes
        if redis.call('ZSCORE', LEFT, account) then of_left = of_left + 1 end
      end
    end
  end
  results[#results + 1] = result
end
for account, backlog in pairs(backlogs) do
  if backlog.now > backlog.before then redis.call('HINCRBY', BACKLOG, account, backlog.now - backlog.before) end
end
for lane, units in pairs(open_units) do
  if units.now > units.before then redis.call('HSET', OPEN, lane, units.now) end
end
local numbers = {}
for account, sequence in pairs(sequences) do
  numbers[#numbers + 1] = account
  numbers[#numbers + 1] = sequence.now
end
call_many('HSET', SEQUENCE, numbers)
if total_bytes > 0 then redis.call('INCRBY', LEDGER_BYTES, total_bytes) end
call_many('ZADD', PARKED, parked)
for index, entries in pairs(ended) do call_many('ZADD', index, entries) end
if #unrouted > 0 then
  call_many('ZADD', UNROUTED, unrouted)
  redis.call('INCRBY', UNROUTED_BYTES, unrouted_bytes)
  redis.call('HINCRBY', TOTALS, 'unrouted', #unrouted / 2)
  if of_left > 0 then redis.call('HINCRBY', TOTALS, 'unrouted_of_left', of_left) end
end
if stubs > 0 then redis.call('HINCRBY', TOTALS, 'stubs', stubs) end
for name, count in pairs(counts) do redis.call('HINCRBY', TOTALS, name, count) end
redis.call('LTRIM', INTAKE, messages, -1)
if redis.call('EXISTS', INTAKE) == 0 then
  redis.call('HDEL', INTAKE_LEASE, 'deaths', 'alone_deaths', 'alone') -- none of them has killed this tick
elseif messages > 0 then
  redis.call('HDEL', INTAKE_LEASE, 'alone_deaths', 'alone') -- another one is the first now
end
append(lanes)
publish_changes()
return results
