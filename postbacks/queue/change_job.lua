-- change_job: brings a job into another state, and writes fields of it; or lets its parts that have paused themselves go on.
--
-- KEYS JOB, JOB_IDS, JOB_PARTS, JOB_OPEN
-- ARGV[2] job   ARGV[3] states that it may be in, separated by spaces   ARGV[4] the state that it comes into
-- ARGV[5] 'resume' where parts that have paused themselves go on; 'stuck' where nothing is changed unless all that are left have;
--   else ''
-- ARGV[6..] names of fields and their values, in turn; an empty value takes a field away
-- Returns the state that it was in, '' where there is no such job; nothing is changed where that is none of those. 'going':
--   it is not stuck.
-- Atomic: state, fields and parts change in one step.
local job, from, to, how = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local job_key = JOB .. job
local FIRST = 6
local state = redis.call('HGET', job_key, 'state')
if not state then return '' end
if not string.find(' ' .. from .. ' ', ' ' .. state .. ' ', 1, true) then return state end
local parts = how ~= '' and redis.call('HGETALL', JOB_PARTS .. job) or {}
if how == 'stuck' then
  for i = 2, #parts, 2 do
    local part = cjson.decode(parts[i])
    if not part.done and not part.paused then return 'going' end -- somebody has let it go on meanwhile
  end
end
redis.call('HSET', job_key, 'state', to)
for at = FIRST, #ARGV, 2 do
  if ARGV[at + 1] == '' then
    redis.call('HDEL', job_key, ARGV[at])
  else
    redis.call('HSET', job_key, ARGV[at], ARGV[at + 1])
  end
end
if how == 'resume' then
  for i = 1, #parts, 2 do
    local part = cjson.decode(parts[i + 1])
    if part.paused then
      part.paused, part.answered, part.row = nil, 0, 0
      redis.call('HSET', JOB_PARTS .. job, parts[i], cjson.encode(part))
    end
  end
end
if to == 'ended' or to == 'stopped' or to == 'refused' then
  redis.call('HSET', job_key, 'ended_ms', now)
  redis.call('DEL', JOB_IDS .. job, JOB_OPEN .. job)
elseif to == 'running' then
  redis.call('DEL', JOB_IDS .. job)
end
return state
