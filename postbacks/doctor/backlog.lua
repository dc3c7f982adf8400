-- backlog: accounts' counts of postbacks that are neither delivered nor given up, and the postbacks counted
-- in lanes, claims, quarantine and the parked set, in one instant; and, where asked, puts the counts right.
--
-- ARGV[2] mode (inspect | repair)   ARGV[3] claimed and parked ids beyond which nothing is counted, as that
--   would block the broker   ARGV[4] number of groups   ARGV[5] number of tokens of delivering loops
--   besides those of CLAIMERS   ARGV[6..] the groups, the tokens, then the accounts
-- Returns a row an account, as it was before: {account, count as noted, counted}; none if there are too many.
-- Atomic: nothing moves between the count and what is written.
local mode, at_most, groups, extra = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local first_token = 6 + groups
local tokens, is_token, counted = redis.call('ZRANGE', CLAIMERS, 0, -1), {}, {}
for _, token in ipairs(tokens) do is_token[token] = true end
for i = first_token, first_token + extra - 1 do
  if not is_token[ARGV[i]] then tokens[#tokens + 1] = ARGV[i] end
end
local size = redis.call('ZCARD', PARKED) + redis.call('ZCARD', QUARANTINE)
for _, token in ipairs(tokens) do size = size + redis.call('HLEN', CLAIMS .. token) end
if size > at_most then return {} end

local function count(ids)
  for _, id in ipairs(ids) do
    local account = redis.call('HGET', RECORD .. id, 'account')
    if account then counted[account] = (counted[account] or 0) + 1 end
  end
end
count(redis.call('ZRANGE', PARKED, 0, -1))
count(redis.call('ZRANGE', QUARANTINE, 0, -1))
for _, token in ipairs(tokens) do count(redis.call('HKEYS', CLAIMS .. token)) end

local rows = {}
for i = first_token + extra, #ARGV do
  local account = ARGV[i]
  local sum = counted[account] or 0
  for at = 6, 5 + groups do sum = sum + redis.call('LLEN', LANE .. account .. '/' .. ARGV[at]) end
  local noted = tonumber(redis.call('HGET', BACKLOG, account) or 0)
  rows[#rows + 1] = { account, noted, sum }
  if mode == 'repair' and noted ~= sum then
    if sum > 0 then redis.call('HSET', BACKLOG, account, sum) else redis.call('HDEL', BACKLOG, account) end
  end
end
return rows
