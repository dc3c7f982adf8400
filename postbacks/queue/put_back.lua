-- put_back: sends a dead or skipped postback again whose record has left the broker, from the copy that the history has of it:
-- its record as it was, with its notes, so that its next attempt has the next number. Then it is one that was sent again
-- (`replay`): it waits at the end of its lane with all its resends before it, or in the quarantine where it has killed processes.
--
-- KEYS QUARANTINE, BACKLOG, OPEN, LEDGER_BYTES, RECORD, LANE
-- ARGV[2] schema version of records   ARGV[3] bytes of memory that a record takes beside its own texts (an estimate)
-- ARGV[4..] a PutBackRow (rows.py): id, account, group, origin, code, url, endpoint, xml, created_ms, sequence, attempts, digest,
--   own, first_id, alone, opt_out
-- ARGV[20..] its notes: the number of an attempt and the attempt as JSON, in turn
-- Returns the state the postback is in afterwards. Where the broker has a record of its id, nothing is changed.
-- Atomic: its record and its place come together.
local schema, overhead = ARGV[2], tonumber(ARGV[3])
local WIDTH, FIRST = 16, 4
local id, account, group, origin, code, url, endpoint, xml, created_ms, sequence, attempts, digest, own, first_id, alone, opt_out =
  unpack(ARGV, FIRST, FIRST + WIDTH - 1)
local record, lane = RECORD .. id, account .. '/' .. group
local state = redis.call('HGET', record, 'state')
if state then return state end
local bytes = overhead + #xml + #url
local notes = {}
for i = 20, #ARGV, 2 do
  notes[#notes + 1] = 'attempt:' .. ARGV[i]
  notes[#notes + 1] = ARGV[i + 1]
  bytes = bytes + #ARGV[i + 1]
end
local units = units_in(bytes)
redis.call('HSET', record, 'state', 'waiting', 'attempts', attempts, 'failures', 0, 'account', account, 'group', group,
  'bytes', bytes, 'origin', origin, 'code', code, 'url', url, 'endpoint', endpoint, 'own', own, 'created_ms', created_ms,
  'sequence', sequence, 'digest', digest, 'schema', schema, 'ready_ms', now, 'xml', xml)
if units > 1 then redis.call('HSET', record, 'units', units) end
if opt_out == '1' then redis.call('HSET', record, 'opt_out', 1) end
if first_id ~= '' then redis.call('HSET', record, 'first_id', first_id) end
call_many('HSET', record, notes)
redis.call('INCRBY', LEDGER_BYTES, bytes)
redis.call('HINCRBY', BACKLOG, account, 1)
redis.call('HINCRBY', OPEN, lane, units)
if alone == '1' then
  redis.call('HSET', record, 'suspicion', 'alone')
  redis.call('ZADD', QUARANTINE, ALONE, id)
else
  redis.call('RPUSH', LANE .. lane, id)
  make_ready(lane)
end
changed[1] = id
publish_changes()
return 'waiting'
