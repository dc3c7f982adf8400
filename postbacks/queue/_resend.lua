-- _resend: how a postback that has ended is sent again: it goes to the end of its lane, with all its resends before it; one that
-- has killed processes goes to the quarantine, to be tried alone. Its attempts stay in the ledger, and its next attempt has the
-- next number. Where it goes is found when it is claimed: its account may have another URL by then.
--
-- KEYS QUEUE, QUARANTINE, BACKLOG, DONE, DEAD, OPEN, LEDGER_BYTES, UNROUTED, UNROUTED_BYTES, RECORD, LANE

-- What the record keeps of a resend: by whom, and by which job ('' for none).
local function resend_note(by, job)
  return cjson.encode({ by = by, job = job, at_ms = now })
end

-- Lets a record wait again, with the note of its resend.
local function keep_note(record, attempts, note)
  redis.call('HSET', record, 'state', 'waiting', 'failures', 0, 'ready_ms', now, 'resent:' .. attempts, note)
  redis.call('INCRBY', LEDGER_BYTES, #note)
  redis.call('HINCRBY', record, 'bytes', #note)
end

-- Puts a postback whose record is ready into its one place, and counts it.
local function wait_again(id, account, group, units, is_alone, note, attempts)
  local record, lane = RECORD .. id, account .. '/' .. group
  keep_note(record, attempts, note)
  if units > 1 then redis.call('HSET', record, 'units', units) end
  redis.call('HINCRBY', BACKLOG, account, 1)
  redis.call('HINCRBY', OPEN, lane, units)
  if is_alone then
    redis.call('HSET', record, 'suspicion', 'alone')
    redis.call('ZADD', QUARANTINE, ALONE, id)
  else
    redis.call('RPUSH', LANE .. lane, id)
    make_ready(lane)
  end
  changed[#changed + 1] = id
end

-- Sends a postback again that the ledger has, where it is in one of these states (`from`: state -> true). A message that only a
-- newer version could read, whose reason begins with `newer`, goes back into Celery's queue as it came, and the ledger forgets
-- it: whoever takes it in next reads it again. Returns the state the postback is in afterwards ('queued': back in the queue),
-- '' if the ledger does not have it. A stub stays dead, and what was erased stays as it is: neither has a document that
-- could be sent.
local function send_again(id, from, newer, note)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'state', 'account', 'group', 'raw', 'reason', 'bytes', 'stub', 'attempts', 'in_lane',
    'forgotten')
  local state, account, group, raw, reason, bytes = r[1], r[2], r[3], r[4], r[5] or '', tonumber(r[6] or 0)
  if not state then return '' end
  if state == 'dead' and raw and string.sub(reason, 1, #newer) == newer then
    drop(DEAD, id)
    redis.call('LPUSH', QUEUE, raw)
    changed[#changed + 1] = id
    return 'queued'
  end
  if not from[state] or (group or '') == '' or r[7] or r[10] then return state end -- without a group it is no postback
  if r[9] then -- cancelled deep in its lane: it stands there, and is counted
    redis.call('HDEL', record, 'in_lane', 'reason', 'ended_ms')
    keep_note(record, r[8] or 0, note)
    changed[#changed + 1] = id
    return 'waiting'
  end
  remove_from_dead(account, id, bytes)
  redis.call('ZREM', state == 'dead' and DEAD or DONE, id)
  if redis.call('ZREM', UNROUTED, id) == 1 then redis.call('DECRBY', UNROUTED_BYTES, bytes) end
  redis.call('HDEL', record, 'reason', 'ended_ms', 'alone_deaths', 'alone_lapses', 'cancel')
  wait_again(id, account, group, units_in(bytes + #note), reason == 'poison', note, r[8] or 0)
  return 'waiting'
end

-- Sends a postback again whose record has left the broker, from the copy that the history has of it: `row` is a PutBackRow
-- (rows.py), `notes` the numbers of its attempts and the attempts as JSON, in turn. Returns the state afterwards of what has its
-- id; where the broker has a record of it, nothing is changed.
local function send_copy(row, notes, schema, overhead, note)
  local id, account, group, origin, code, url, endpoint, xml, created_ms, sequence, attempts, digest, own, first_id, alone,
    opt_out =
    unpack(row)
  local record = RECORD .. id
  local state = redis.call('HGET', record, 'state')
  if state then return state end
  local bytes, fields = overhead + #xml + #url, {}
  for i = 1, #notes, 2 do
    fields[i], fields[i + 1] = 'attempt:' .. notes[i], notes[i + 1]
    bytes = bytes + #notes[i + 1]
  end
  redis.call('HSET', record, 'state', 'waiting', 'attempts', attempts, 'failures', 0, 'account', account, 'group', group,
    'bytes', bytes, 'origin', origin, 'code', code, 'url', url, 'endpoint', endpoint, 'own', own, 'created_ms', created_ms,
    'sequence', sequence, 'digest', digest, 'schema', schema, 'xml', xml)
  if opt_out == '1' then redis.call('HSET', record, 'opt_out', 1) end
  if first_id ~= '' then redis.call('HSET', record, 'first_id', first_id) end
  call_many('HSET', record, fields)
  redis.call('INCRBY', LEDGER_BYTES, bytes)
  wait_again(id, account, group, units_in(bytes + #note), alone == '1', note, attempts)
  return 'waiting'
end
