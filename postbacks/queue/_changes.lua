-- _changes: the feed, from which the recorder of the history learns which postbacks have changed (`history/feed.py`). It is on
-- while the stream's key exists: so a script that ends by `publish_changes` asks nobody. An entry has the ids of a whole batch,
-- separated by spaces, which no id has (`names.py`).
--
-- KEYS CHANGES, HISTORY
local ENTRY_MAX = 1000 -- ids of an entry

-- Publishes what this script has changed (`changed`); its last command, so that nothing is published that was not done.
local function publish_changes()
  for first = 1, #changed, ENTRY_MAX do
    local ids = table.concat(changed, ' ', first, math.min(first + ENTRY_MAX - 1, #changed))
    redis.call('XADD', CHANGES, 'NOMKSTREAM', '*', 'ids', ids)
  end
end

-- Turns the feed off. Returns 1, or 0 where it was off.
local function turn_feed_off(reason)
  if redis.call('UNLINK', CHANGES) == 0 then return 0 end
  redis.call('HSET', HISTORY, 'off_ms', now, 'off_reason', reason)
  redis.call('HDEL', HISTORY, 'on_ms', 'resync')
  return 1
end
