-- resume: ends the pause of an account, or of all whose pause was to end by now, some each call. Their lanes take turns again. A
-- row may say paused though nothing else does, as somebody has deleted that.
--
-- KEYS ROUTES, PAUSED, PAUSES
-- ARGV[2] account, empty for those whose pause was to end by now   ARGV[3] of those so many at most
-- Returns the accounts that were paused.
-- Atomic: the lanes take turns again in the same step.
local accounts = { ARGV[2] }
if ARGV[2] == '' then accounts = redis.call('ZRANGEBYSCORE', PAUSED, '-inf', now, 'LIMIT', 0, ARGV[3]) end
local resumed = {}
for _, account in ipairs(accounts) do
  local ends, row = redis.call('ZSCORE', PAUSED, account), redis.call('HGET', ROUTES, account) or ''
  if ends or string.find(row, '^%d+ paused') then
    redis.call('ZREM', PAUSED, account)
    redis.call('HDEL', PAUSES, account)
    local since, rest = string.match(row, '^(%d+)[^\n]*(\n.*)$')
    if since then
      local at = string.format('%.0f', math.min(now, tonumber(ends or nil) or now))
      redis.call('HSET', ROUTES, account, since .. ' resumed ' .. at .. rest)
    end
    requeue_account(account)
    resumed[#resumed + 1] = account
  end
end
return resumed
