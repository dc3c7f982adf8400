-- note_tick: notes that a tick has finished, and of which version.
--
-- KEYS LAST_TICK, TOTALS, TICKS
-- ARGV[2] the version   ARGV[3] the version whose ticks do not name theirs   ARGV[4] ms after the last tick from which on this
--   one is late
-- Returns ms since the tick before, -1 if there was none.
-- Atomic: nobody sees the time of a tick without its version.
local before = tonumber(redis.call('GET', LAST_TICK) or nil)
if before then
  local newest = 0
  for _, at_ms in ipairs(redis.call('HVALS', TICKS)) do newest = math.max(newest, tonumber(at_ms)) end
  -- the tick before this one did not name its version: it is noted here, as its own note is overwritten now
  if before > newest then redis.call('HSET', TICKS, ARGV[3], before) end
  if now - before > tonumber(ARGV[4]) then redis.call('HINCRBY', TOTALS, 'late_ticks', 1) end
end
redis.call('SET', LAST_TICK, now)
redis.call('HSET', TICKS, ARGV[2], now)
redis.call('HINCRBY', TOTALS, 'ticks', 1)
return before and now - before or -1
