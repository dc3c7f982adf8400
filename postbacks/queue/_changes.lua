-- _changes: the feed, from which the recorder of the history learns which postbacks have changed (`history/feed.py`). It is on
-- while the stream's key exists: so a script that ends by `publish_changes` asks nobody. An entry has the ids of a whole batch,
-- separated by spaces, which no id has (`names.py`).
--
-- KEYS CHANGES, HISTORY
local ENTRY_MAX = 1000 -- ids of an entry
local DROPPED_MAX = 20000 -- entries that one call drops, so that it does not hold the broker up
local SLACK_MS = 1000 -- a script looks at the clock when it begins, and its entry has the time of its end

-- Publishes what this script has changed (`changed`); its last command, so that nothing is published that was not done. Where
-- the broker refuses an entry (a right that its user lacks) delivery goes on, and a resync is to find the ids: another one,
-- where one is under way, as that may have read them before.
local function publish_changes()
  for first = 1, #changed, ENTRY_MAX do
    local ids = table.concat(changed, ' ', first, math.min(first + ENTRY_MAX - 1, #changed))
    local reply = redis.pcall('XADD', CHANGES, 'NOMKSTREAM', '*', 'ids', ids)
    if type(reply) == 'table' and reply.err then
      if redis.call('EXISTS', CHANGES) == 1 then redis.call('HSET', HISTORY, 'resync', 'refused', 'again', 1, 'unrecorded_ms', 0) end
      return
    end
  end
end

-- The ms from which on what has ended may not be recorded yet: math.huge where all is, or where nobody records; 0 where it cannot
-- be said: the clock was put back since an entry, or the user may not read the feed. Read once a call.
local unrecorded_from
local function unrecorded_since()
  if unrecorded_from then return unrecorded_from end
  unrecorded_from = math.huge
  if redis.call('EXISTS', CHANGES) == 1 then
    local entries = redis.pcall('XRANGE', CHANGES, '-', '+', 'COUNT', 1)
    local oldest_ms = entries[1] and tonumber(string.match(entries[1][1], '^%d+'))
    if entries.err or oldest_ms and oldest_ms > now then
      unrecorded_from = 0
    elseif oldest_ms then
      unrecorded_from = oldest_ms - SLACK_MS
    end
    local gap = redis.call('HGET', HISTORY, 'unrecorded_ms')
    if gap then unrecorded_from = math.min(unrecorded_from, tonumber(gap)) end
  end
  return unrecorded_from
end

-- The bytes that the feed takes: exact for its first nodes, the others by their mean. By five nodes, the default, it would be
-- twice too many where the oldest entries are large. 0 for a user who may not ask: its ticks do all else.
local function feed_bytes()
  local bytes = redis.pcall('MEMORY', 'USAGE', CHANGES, 'SAMPLES', 1000)
  return type(bytes) == 'number' and bytes or 0
end

-- Drops the oldest entries, about so many bytes (`wanted`) of those that the feed has beyond `kept`: a gap, which a resync
-- closes. Returns how many, and about how many bytes they were.
local function shrink_feed(wanted, kept)
  local bytes = feed_bytes()
  wanted = math.min(wanted, bytes - kept)
  if wanted <= 0 then return 0, 0 end
  local first_unrecorded, length = unrecorded_since(), redis.call('XLEN', CHANGES)
  local left = math.max(length - DROPPED_MAX, math.floor(length * (1 - wanted / bytes)))
  local dropped = redis.call('XTRIM', CHANGES, 'MAXLEN', left)
  if dropped == 0 then return 0, 0 end
  redis.call('HSET', HISTORY, 'resync', 'gap', 'gap_ms', now, 'unrecorded_ms', string.format('%.0f', first_unrecorded))
  redis.call('HINCRBY', HISTORY, 'gaps', 1)
  redis.call('HINCRBY', HISTORY, 'gap_entries', dropped)
  return dropped, bytes * dropped / length
end

-- Turns the feed off. Returns 1, or 0 where it was off, or the user may not.
local function turn_feed_off(reason)
  if redis.pcall('UNLINK', CHANGES) ~= 1 then return 0 end
  redis.call('HSET', HISTORY, 'off_ms', now, 'off_reason', reason)
  redis.call('HDEL', HISTORY, 'on_ms', 'resync', 'again', 'unrecorded_ms')
  return 1
end
