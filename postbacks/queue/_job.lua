-- _job: an account's part of a job, one value of a hash: {total, cursor, done, paused, waiting: moved and not answered, answered:
-- since the part began or went on, row: latest failures in a row, failure: what the latest was, and the counts}.
--
-- KEYS JOB_PARTS
local COUNTS = { 'moved', 'delivered', 'failed', 'changed', 'in_flight', 'forgotten', 'no_document', 'nowhere' }

-- Returns an account's part; nil where the job has none of it.
local function part_of(job, account)
  local packed = redis.call('HGET', JOB_PARTS .. job, account)
  return packed and cjson.decode(packed)
end

-- Writes a part, and adds what has changed in its counts since `before` to the job's (`job_key`).
local function save_part(job, job_key, account, part, before)
  for _, name in ipairs(COUNTS) do
    if part[name] ~= before[name] then redis.call('HINCRBY', job_key, name, part[name] - before[name]) end
  end
  local packed = cjson.encode(part)
  redis.call('HSET', JOB_PARTS .. job, account, packed)
  return packed
end

local function copy_of(part)
  local copy = {}
  for name, value in pairs(part) do copy[name] = value end
  return copy
end
