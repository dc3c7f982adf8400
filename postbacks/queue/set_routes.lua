-- set_routes: writes where accounts' postbacks go, where the other scripts read it. What waits for an account whose row changes takes
-- turns again. A pause stands in the first line of the row, and stays.
--
-- KEYS ROUTES, GONE, LEFT, PAUSED
-- ARGV[2] ms for which what waits for an account that is gone is kept
-- ARGV[3..] two an account: its name, and its row without its first line (`queue/routes.py`)
-- Returns how many rows have changed.
-- Atomic: no POST begins between the new row and the end of the waits by the old one.
local keep_ms = tonumber(ARGV[2])
local LEFT_MS = 7 * 86400000 -- events that come for an account so long after its removal count as an oversight
local changed = 0

-- Returns what the first line of a row says of a pause after its time. The row of an account that is paused may have been lost.
local function pause_mark(account, before)
  if before then return string.match(before, '^%d+([^\n]*)') end
  local ends = redis.call('ZSCORE', PAUSED, account)
  return ends and ' paused ' .. ((tonumber(ends) or math.huge) < math.huge and string.format('%.0f', ends) or '-') or ''
end

for at = 3, #ARGV, 2 do
  local account, text = ARGV[at], ARGV[at + 1]
  local before = redis.call('HGET', ROUTES, account)
  if not before or string.match(before, '^[^\n]*\n(.*)$') ~= text then
    redis.call('HSET', ROUTES, account, string.format('%.0f', now) .. pause_mark(account, before) .. '\n' .. text)
    if string.sub(text, 1, 5) == 'gone\n' then
      redis.call('ZADD', GONE, 'NX', now + keep_ms, account)
      redis.call('ZADD', LEFT, now, account)
      call_many('ZREM', LEFT, redis.call('ZRANGEBYSCORE', LEFT, '-inf', now - LEFT_MS, 'LIMIT', 0, 10))
    else
      redis.call('ZREM', GONE, account)
      redis.call('ZREM', LEFT, account)
    end
    requeue_account(account)
    changed = changed + 1
  end
end
return changed
