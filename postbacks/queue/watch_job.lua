-- watch_job: looks at postbacks that a job has moved, and notes the answers to their next POSTs. A part of which so many have
-- failed in a row pauses itself.
--
-- KEYS JOB, JOB_OPEN, RECORD
-- ARGV[2] job   ARGV[3] where HSCAN goes on, or '' to look at none   ARGV[4] about how many are looked at
-- ARGV[5] failures in a row that pause a part
-- ARGV[6..] answers that are known from elsewhere, of those whose record has left the broker: id and '' for delivered, or what
--   it failed of, in turn
-- Returns {where HSCAN goes on, account and part as JSON in turn of those that have changed, accounts that have paused
--   themselves, ids whose record has left the broker}.
-- Atomic: an answer is counted once.
local job, scan, count, row_max = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
local job_key, job_open = JOB .. job, JOB_OPEN .. job
local FIRST = 6
-- failures that say nothing of the receiver: a process of ours died, somebody cancelled it, or nobody knows
local NO_EVIDENCE = { unknown = true, revoked = true, forgotten = true }
local parts, befores, paused, gone, answered = {}, {}, {}, {}, {}

-- Notes an answer: `failure` is nil for a delivery.
local function note_answer(id, account, failure)
  local part = parts[account]
  if not part then
    part = part_of(job, account)
    parts[account], befores[account] = part, copy_of(part)
  end
  answered[#answered + 1] = id
  part.waiting, part.answered = part.waiting - 1, part.answered + 1
  if failure then
    part.failed = part.failed + 1
    if not NO_EVIDENCE[failure] then part.row, part.failure = part.row + 1, failure end
    if part.row >= row_max and not part.paused and not part.done then
      part.paused = true
      paused[#paused + 1] = account
    end
  else
    part.delivered, part.row = part.delivered + 1, 0
  end
end

-- Returns whether a postback that was moved after so many attempts is answered, and what it failed of.
local function answer_of(r)
  if r[3] then
    local note = cjson.decode(r[3])
    if note.outcome == 'delivered' then return true end
    return true, note.status and tostring(note.status) or note.outcome
  elseif r[1] ~= 'waiting' and r[1] ~= 'parked' and r[1] ~= 'sending' then
    return true, r[2] or r[1]
  end
  return false
end

for at = FIRST, #ARGV, 2 do
  local value = redis.call('HGET', job_open, ARGV[at])
  if value then note_answer(ARGV[at], string.match(value, '^%d+ (.*)$'), ARGV[at + 1] ~= '' and ARGV[at + 1] or nil) end
end
call_many('HDEL', job_open, answered)
local known = #answered

if scan ~= '' then
  local reply = redis.call('HSCAN', job_open, scan, 'COUNT', count)
  scan = reply[1]
  for i = 1, #reply[2], 2 do
    local id, attempts, account = reply[2][i], string.match(reply[2][i + 1], '^(%d+) (.*)$')
    local r = redis.call('HMGET', RECORD .. id, 'state', 'reason', 'attempt:' .. string.format('%d', attempts + 1), 'schema')
    if not r[4] then
      gone[#gone + 1] = id
    else
      local is_answered, failure = answer_of(r)
      if is_answered then note_answer(id, account, failure) end
    end
  end
  call_many('HDEL', job_open, { unpack(answered, known + 1) })
end

local changed_parts = {}
for account, part in pairs(parts) do
  changed_parts[#changed_parts + 1] = account
  changed_parts[#changed_parts + 1] = save_part(job, job_key, account, part, befores[account])
end
return { scan, changed_parts, paused, gone }
