-- replay: sends a dead or skipped postback again: it goes to the end of its lane, with all its resends before it; one that has
-- killed processes goes to the quarantine, to be tried alone. Its attempts stay in the ledger, and its next attempt has the
-- next number. Where it goes is found when it is claimed: its account may have another URL by then.
--
-- A message that only a newer version could read goes back into Celery's queue as it came, and the ledger forgets it: whoever
-- takes it in next reads it again.
--
-- KEYS QUEUE, QUARANTINE, BACKLOG, DONE, DEAD, OPEN, UNROUTED, UNROUTED_BYTES, RECORD, LANE
-- ARGV[2] id   ARGV[3] how the reason of such a message begins
-- Returns the state the postback is in afterwards ('queued': back in the queue), '' if the ledger does not have it. A stub stays
--   dead, and what was erased stays as it is: neither has a document that could be sent.
-- Atomic: it leaves the dead and joins its lane in one step.
local id = ARGV[2]
local record = RECORD .. id
local r = redis.call('HMGET', record, 'state', 'account', 'group', 'raw', 'reason', 'bytes', 'stub',
  'forgotten')
local state, account, group, raw, reason, bytes = r[1], r[2], r[3], r[4], r[5] or '', tonumber(r[6] or 0)
if not state then return '' end
if state == 'dead' and raw and string.sub(reason, 1, #ARGV[3]) == ARGV[3] then
  drop(DEAD, id)
  redis.call('LPUSH', QUEUE, raw)
  changed[1] = id
  publish_changes()
  return 'queued'
end
if state ~= 'dead' and state ~= 'skipped' or (group or '') == '' or r[7] or r[8] then return state end -- without a group it is no postback
local lane = account .. '/' .. group
remove_from_dead(account, id, bytes)
redis.call('ZREM', state == 'dead' and DEAD or DONE, id)
if redis.call('ZREM', UNROUTED, id) == 1 then redis.call('DECRBY', UNROUTED_BYTES, bytes) end
local units = units_in(bytes)
redis.call('HSET', record, 'state', 'waiting', 'failures', 0, 'ready_ms', now)
if units > 1 then redis.call('HSET', record, 'units', units) end
redis.call('HDEL', record, 'reason', 'ended_ms', 'alone_deaths', 'alone_lapses')
redis.call('HINCRBY', BACKLOG, account, 1)
redis.call('HINCRBY', OPEN, lane, units)
if reason == 'poison' then
  redis.call('HSET', record, 'suspicion', 'alone')
  redis.call('ZADD', QUARANTINE, ALONE, id)
else
  redis.call('RPUSH', LANE .. lane, id)
  make_ready(lane)
end
changed[1] = id
publish_changes()
return 'waiting'
