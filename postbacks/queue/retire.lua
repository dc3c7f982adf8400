-- retire: what waits for accounts that have been gone for long enough ends as dead, some of it a call; then their rows
-- are forgotten. What has a URL of its own from its call, and knew no account, stays.
--
-- ARGV[2] postbacks at most
-- Returns {how many have ended, the accounts whose postbacks they were}.
local at_most = tonumber(ARGV[2])
local BATCH, QUARANTINED_MAX = math.min(500, at_most), 1000
local looked, ended, accounts = 0, 0, {}
local gone = redis.call('ZRANGEBYSCORE', GONE, '-inf', now, 'LIMIT', 0, 100)

local function end_removed(id, account)
  finish(id, account, 'dead', 'account_removed', DEAD)
  ended = ended + 1
  accounts[account] = true
end

-- what is in quarantine is in no lane, and is not tried while its account stands still
if #gone > 0 then
  local is_gone = {}
  for _, account in ipairs(gone) do is_gone[account] = true end
  for _, id in ipairs(redis.call('ZRANGE', QUARANTINE, 0, QUARANTINED_MAX - 1)) do
    local r = redis.call('HMGET', RECORD .. id, 'account', 'own')
    if r[1] and is_gone[r[1]] and r[2] ~= '2' then
      redis.call('ZREM', QUARANTINE, id)
      end_removed(id, r[1])
    end
  end
end

for _, account in ipairs(gone) do
  local left, stay = false, {}
  for _, group in ipairs(GROUPS) do
    local lane, only_stay = account .. '/' .. group, false
    while looked < at_most and not only_stay do
      local ids = redis.call('LPOP', LANE .. lane, math.min(BATCH, at_most - looked))
      if not ids then break end
      looked = looked + #ids
      local staying = 0
      for _, id in ipairs(ids) do
        local r = redis.call('HMGET', RECORD .. id, 'state', 'own')
        if r[1] == 'waiting' and r[2] == '2' then
          stay[lane] = stay[lane] or {}
          table.insert(stay[lane], id)
          staying = staying + 1
        elseif r[1] == 'waiting' then
          end_removed(id, account)
        end
      end
      -- They came after the account was gone, so behind what is to end. Should any of that stand behind them, the loop
      -- that claims it lets the account stand still once more.
      only_stay = staying == BATCH
    end
    if not only_stay and redis.call('EXISTS', LANE .. lane) == 1 then left = true end
  end
  if not left then
    redis.call('ZREM', GONE, account)
    redis.call('HDEL', ROUTES, account)
  end
  append(stay)
  if looked >= at_most then break end
end
local names = {}
for account in pairs(accounts) do names[#names + 1] = account end
return { ended, names }
