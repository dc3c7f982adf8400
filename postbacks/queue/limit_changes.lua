-- limit_changes: holds the feed of the history under its share of the memory: past it the oldest entries go, a tenth of the share at
-- once. Turns the feed off that no recorder has given a sign of for too long. A feed whose notes somebody has deleted counts
-- as turned on just now.
--
-- KEYS CHANGES, HISTORY
-- ARGV[2] bytes that the feed may take   ARGV[3] ms without a sign of a recorder after which it is turned off   ARGV[4] the
--   reason that is noted then
-- Returns {entries dropped, 1 if it was turned off, else 0}.
-- Atomic: no entry goes without the note of a gap.
local most, silent_max_ms, reason = tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
if redis.call('EXISTS', CHANGES) == 0 then return { 0, 0 } end
local r = redis.call('HMGET', HISTORY, 'on_ms', 'seen_ms')
if not r[1] then redis.call('HSET', HISTORY, 'on_ms', now, 'resync', 'registered', 'unrecorded_ms', 0) end
local seen_ms = math.max(tonumber(r[1] or now), tonumber(r[2] or 0))
if now - seen_ms >= silent_max_ms then
  local is_off = turn_feed_off(reason)
  if is_off == 1 then redis.call('HSET', HISTORY, 'silent', 1) end
  return { 0, is_off }
end
local bytes = feed_bytes()
return { bytes > most and shrink_feed(bytes - 0.9 * most, 0) or 0, 0 }
