-- pause: lets an account stand still until it is resumed, or until its pause ends; of one that is paused it changes the end and
-- the details. No lane is moved: a claim takes the lanes of the account out of their turns as they come up.
--
-- KEYS ROUTES, PAUSED, PAUSES
-- ARGV[2] account   ARGV[3] ms at which the pause ends, empty for none   ARGV[4] details as JSON
-- Returns since when it is paused, in ms; false where the account has no row (`queue/routes.py`) or the end has passed: nothing is
-- changed.
-- Atomic: no POST of the account begins once it stands among the paused.
local account, ends, details = ARGV[2], ARGV[3], ARGV[4]
local row = redis.call('HGET', ROUTES, account)
if not row or ends ~= '' and tonumber(ends) <= now then return false end
local stored = redis.call('HGET', PAUSES, account)
local since = string.format('%.0f', now)
if stored then since = string.match(stored, '^%d+') end
redis.call('HSET', PAUSES, account, since .. ' ' .. (ends == '' and '-' or ends) .. ' ' .. details)
redis.call('ZADD', PAUSED, ends == '' and '+inf' or ends, account)
local row_since, rest = string.match(row, '^(%d+)[^\n]*(\n.*)$')
redis.call('HSET', ROUTES, account, row_since .. ' paused ' .. (ends == '' and '-' or ends) .. rest)
return tonumber(since)
