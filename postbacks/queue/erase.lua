-- erase: takes from postbacks that have ended what identifies a person: the document or the message as it came, the URL, the
-- answers of attempts, and a reason in words, which may quote it. What else the record says stays, and it says since when it
-- is so; it cannot be sent again, by a worker of version 0.1.0 neither, as it has no URL. Among its account's dead it stands
-- with the stubs.
--
-- KEYS DEAD_BYTES, LEDGER_BYTES, UNROUTED, UNROUTED_BYTES, RECORD, DEAD_OF, STUBS_OF, FORGET
-- ARGV[2] request that it is done for   ARGV[3..] ids
-- Returns how many were erased; one that has not ended, or was erased before, is left alone.
-- Atomic: a record, its bytes in every count and the counts of the request change together.
local request = FORGET .. ARGV[2]
local ENDED = { delivered = true, dead = true, skipped = true, cancelled = true }
local requested = tonumber(redis.call('HGET', request, 'requested_ms') or math.huge)
local erased, answers, cancelled = 0, 0, 0

-- Empties the notes of attempts that have more to say than numbers. Returns the bytes that this frees.
local function empty_notes(record, fields)
  local freed = 0
  for name, note in pairs(fields) do
    if string.sub(name, 1, 8) == 'attempt:' and (string.find(note, '"detail"', 1, true) or string.find(note, '"excerpt"', 1, true)) then
      local plain = cjson.decode(note)
      plain.detail, plain.excerpt = nil, nil
      plain = cjson.encode(plain)
      redis.call('HSET', record, name, plain)
      freed, answers = freed + #note - #plain, answers + 1
    end
  end
  return freed
end

for i = 3, #ARGV do
  local id, fields = ARGV[i], {}
  local record = RECORD .. id
  local flat = redis.call('HGETALL', record)
  for j = 1, #flat, 2 do fields[flat[j]] = flat[j + 1] end
  if ENDED[fields.state] and fields.schema and not fields.forgotten then
    local freed = #(fields.xml or '') + #(fields.raw or '') + #(fields.url or '') + empty_notes(record, fields)
    local reason = fields.reason or ''
    if not string.match(reason, '^[a-z_]*$') then -- no word of ours
      redis.call('HSET', record, 'reason', 'forgotten')
      freed = freed + math.max(0, #reason - #'forgotten')
    end
    -- what is no postback may have anything for its event
    if fields.group == '' then redis.call('HSET', record, 'origin', '', 'code', '') end
    local account, bytes = fields.account or '', tonumber(fields.bytes or 0)
    freed = math.min(freed, bytes)
    redis.call('HDEL', record, 'xml', 'raw')
    redis.call('HSET', record, 'url', '', 'bytes', bytes - freed, 'forgotten', now)
    redis.call('DECRBY', LEDGER_BYTES, freed)
    local since = redis.call('ZSCORE', DEAD_OF .. account, id)
    if since then
      redis.call('ZREM', DEAD_OF .. account, id)
      redis.call('ZADD', STUBS_OF .. account, since, id)
    end
    if since or redis.call('ZSCORE', STUBS_OF .. account, id) then redis.call('ZADD', DEAD_BYTES, 'INCR', -freed, account) end
    if redis.call('ZSCORE', UNROUTED, id) then redis.call('DECRBY', UNROUTED_BYTES, freed) end
    erased = erased + 1
    if fields.reason == 'revoked' and tonumber(fields.ended_ms or 0) >= requested then cancelled = cancelled + 1 end
    changed[#changed + 1] = id
  end
end
if erased > 0 then redis.call('HINCRBY', request, 'records', erased) end
if cancelled > 0 then redis.call('HINCRBY', request, 'cancelled', cancelled) end
if answers > 0 then redis.call('HINCRBY', request, 'answers', answers) end
publish_changes()
return erased
