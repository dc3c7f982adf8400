-- accept: turns the first messages of the intake list into records and puts each postback in its one place.
-- An id that the ledger has already is left as it stands: the same id sent again is one postback.
--
-- ARGV[2] token of the tick   ARGV[3] schema version of records   ARGV[4] backlog allowed per account
-- ARGV[5] bytes of memory that a record takes beside its own texts (an estimate)
-- ARGV[6] how many messages of the intake these are   ARGV[7..] twelve a postback: id, account, group, origin, code, url, endpoint, xml,
--   place (waiting | skipped | dead), reason, raw message (dead ones only),
--   due in ms since the epoch or '' (a caller's eta or countdown)
-- Returns false if the lease was lost (nothing is changed), else one number a postback:
--   1 accepted, 0 known already, -1 dead because its account's backlog is full.
-- Atomic: they leave the intake in the same step.
local token, schema = ARGV[2], ARGV[3]
local backlog_max, overhead, messages = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local WIDTH, FIRST = 12, 7

if redis.call('HGET', INTAKE_LEASE, 'token') ~= token then return false end

local results, touched = {}, {}
for at = FIRST, #ARGV, WIDTH do
  local id, account, group, origin = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local code, url, endpoint, xml = ARGV[at + 4], ARGV[at + 5], ARGV[at + 6], ARGV[at + 7]
  local place, reason, raw = ARGV[at + 8], ARGV[at + 9], ARGV[at + 10]
  local due_ms = tonumber(ARGV[at + 11])
  local record = RECORD .. id
  if redis.call('EXISTS', record) == 1 then
    results[#results + 1] = 0
  else
    local result = 1
    if place == 'waiting' then
      if due_ms and due_ms > now then place = 'parked' end
      local backlog = redis.call('HINCRBY', BACKLOG, account, 1)
      if group == 'mt' and backlog > backlog_max then
        leave_backlog(account)
        place, reason, result = 'dead', 'backlog_full', -1
      end
    end
    local bytes = overhead + #xml + #url + #raw
    redis.call('HSET', record, 'schema', schema, 'state', place, 'account', account, 'group', group,
      'origin', origin, 'code', code, 'url', url, 'endpoint', endpoint, 'xml', xml, 'created_ms', now,
      'sequence', redis.call('HINCRBY', SEQUENCE, account, 1), 'attempts', 0, 'failures', 0, 'bytes', bytes)
    redis.call('INCRBY', LEDGER_BYTES, bytes)
    local lane = account .. '/' .. group
    if place == 'waiting' then
      redis.call('RPUSH', LANE .. lane, id)
      touched[lane] = true
    elseif place == 'parked' then
      redis.call('HSET', record, 'next_ms', due_ms)
      redis.call('ZADD', PARKED, due_ms, id)
    else
      redis.call('HSET', record, 'reason', reason, 'ended_ms', now)
      if raw ~= '' then redis.call('HSET', record, 'raw', raw) end
      redis.call('ZADD', place == 'dead' and DEAD or DONE, now, id)
    end
    results[#results + 1] = result
  end
end
redis.call('LTRIM', INTAKE, messages, -1)
if redis.call('EXISTS', INTAKE) == 0 then
  redis.call('HDEL', INTAKE_LEASE, 'deaths', 'alone_deaths', 'alone') -- all of them are cleared
elseif messages > 0 then
  redis.call('HDEL', INTAKE_LEASE, 'alone_deaths', 'alone') -- another one is the first now
end
for lane in pairs(touched) do make_ready(lane) end
return results
