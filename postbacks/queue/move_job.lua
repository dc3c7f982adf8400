-- move_job: moves a slice of an account's part of a job, what is still in a state that the job was asked for, and the part's
-- cursor with it. A call that is repeated, or comes late, finds another cursor and moves nothing.
--
-- KEYS OPEN, JOB, JOB_OPEN, RECORD
-- ARGV[2] job   ARGV[3] account   ARGV[4] cursor that the part had when the slice was read   ARGV[5] 1 where it is the last slice
-- ARGV[6] schema version of records   ARGV[7] bytes of memory that a record takes beside its own texts (an estimate)
-- ARGV[8] how the reason of a message begins that only a newer version could read
-- ARGV[9] units that a group of an account may have open with what is sent again
-- ARGV[10] ids of a lane that are looked at from each end for one that is cancelled
-- ARGV[11] postbacks of an account that go first   ARGV[12] postbacks of the job that may wait
-- ARGV[13..] the slice, a postback each: id, time of its acceptance, cursor behind it, 1 where the broker had it when the slice
--   was read, the count that it is left under or 'moved', how many arguments follow, and those: where it is to be moved and the
--   broker did not have it, a PutBackRow (rows.py) and its notes
-- Returns {why it stopped, the part as JSON, ids that were moved}. Why: 'end' of the slice; 'stale' another cursor or state;
--   'rate', 'room' of the account, 'first' of the account are not answered, 'waiting' of the job are too many; 'look' the next one
--   has come to the broker or left it since the slice was read.
-- Atomic: postbacks, cursor and counts change in one step.
local job, account, cursor, is_last, schema, overhead = ARGV[2], ARGV[3], ARGV[4], ARGV[5] == '1', ARGV[6], tonumber(ARGV[7])
local newer, units_max, search_max = ARGV[8], tonumber(ARGV[9]), ARGV[10]
local first, waiting_max = tonumber(ARGV[11]), tonumber(ARGV[12])
local job_key, job_open = JOB .. job, JOB_OPEN .. job
local FIRST = 13

local j = redis.call('HMGET', job_key, 'state', 'kind', 'from', 'interval_us', 'next_us', 'by')
local part = part_of(job, account)
if j[1] ~= 'running' or not part or part.cursor ~= cursor or part.paused or part.done then
  return { 'stale', part and cjson.encode(part) or '', {} }
end
local kind, interval_us = j[2], tonumber(j[4] or 0)
local now_us = now * 1000 + clock[2] % 1000
-- at most as many in a second as the rate says: what was not moved for longer is not made up for
local next_us = math.max(tonumber(j[5] or now_us), now_us - math.max(0, 1000000 - interval_us))
local from = {}
for state in string.gmatch(j[3], '%S+') do from[state] = true end
local cancels_open = from.sending or from.held
local note = kind == 'resend' and resend_note(j[6], job)
local before, waiting_of_job = copy_of(part), redis.call('HLEN', job_open)
local why, moved = 'end', {}

-- Cancels a postback. Returns the count that it belongs to.
local function cancel_one(id, state, group)
  if state == 'sending' and not cancels_open then return 'in_flight' end
  state = cancel_postback(id, state, account, group, search_max)
  return state == 'cancelled' and 'moved' or state == 'sending' and 'in_flight' or 'changed'
end

-- Sends a postback again. Returns the count that it belongs to, or nil and why it must wait.
local function resend_one(id, at, count, is_here, r)
  local bytes = is_here and tonumber(r[4] or 0) or overhead + #ARGV[at + 7]
  local group = is_here and (r[3] or '') or ARGV[at + 2]
  if group ~= '' then
    if part.waiting + part.row >= math.max(first, part.answered) then return nil, 'first' end
    if waiting_of_job >= waiting_max then return nil, 'waiting' end
    local open = tonumber(redis.call('HGET', OPEN, account .. '/' .. group) or 0)
    if open > 0 and open + units_in(bytes + #note) > units_max then return nil, 'room' end
  end
  local state, attempts
  if is_here then
    state, attempts = send_again(id, from, newer, note), r[5] or '0'
    if state == 'queued' then return 'moved' end
    if state ~= 'waiting' then return 'no_document' end
  else
    local notes = {}
    for i = at + 16, at + count - 1 do notes[#notes + 1] = ARGV[i] end
    state, attempts = send_copy({ unpack(ARGV, at, at + 15) }, notes, schema, overhead, note), ARGV[at + 10]
    if state ~= 'waiting' then return 'changed' end -- its id is remembered as cancelled
  end
  redis.call('HSET', job_open, id, attempts .. ' ' .. account)
  part.waiting, waiting_of_job = part.waiting + 1, waiting_of_job + 1
  return 'moved'
end

local at = FIRST
while at <= #ARGV do
  local id, created_ms, behind, was_here = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3] == '1'
  local result, count, wait = ARGV[at + 4], tonumber(ARGV[at + 5]), nil
  if interval_us > 0 and next_us > now_us then
    why = 'rate'
    break
  end
  local r = redis.call('HMGET', RECORD .. id, 'state', 'created_ms', 'group', 'bytes', 'attempts', 'schema',
    'forgotten')
  local state, is_here = r[1], r[6] and true or false
  if is_here ~= was_here then
    wait = 'look'
  elseif is_here and tonumber(r[2]) ~= tonumber(created_ms) then
    result = 'changed' -- its id stands for a later acceptance
  elseif r[7] then
    result = 'forgotten'
  elseif kind == 'cancel' and is_here and (from[state] or state == 'sending') then
    result = cancel_one(id, state, r[3])
  elseif is_here and state == 'sending' then
    result = 'in_flight'
  elseif is_here and not from[state] then
    result = 'changed'
  elseif kind == 'resend' and result == 'moved' then
    result, wait = resend_one(id, at + 6, count, is_here, r)
  end
  if wait then
    why = wait
    break
  end
  part[result] = part[result] + 1
  part.cursor = behind
  if result == 'moved' then
    moved[#moved + 1] = id
    next_us = next_us + interval_us
  end
  at = at + 6 + count
end

if why == 'end' and is_last then part.done = true end
if interval_us > 0 then redis.call('HSET', job_key, 'next_us', string.format('%.0f', next_us)) end
local packed = save_part(job, job_key, account, part, before)
publish_changes()
return { why, packed, moved }
