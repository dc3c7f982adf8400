-- retire: what waits for accounts that have been gone for long enough ends as dead, some of it a call; then their rows
-- are forgotten. What has a URL of its own from its call, and knew no account, stays.
--
-- ARGV[2] postbacks at most
-- Returns {how many have ended, the accounts whose postbacks they were}.
local at_most = tonumber(ARGV[2])
local looked, ended, accounts = 0, 0, {}
local gone = redis.call('ZRANGEBYSCORE', GONE, '-inf', now, 'LIMIT', 0, 100)
for _, account in ipairs(gone) do
  local left, stay = false, {}
  for _, group in ipairs(GROUPS) do
    local lane = account .. '/' .. group
    while looked < at_most do
      local ids = redis.call('LPOP', LANE .. lane, math.min(500, at_most - looked))
      if not ids then break end
      looked = looked + #ids
      for _, id in ipairs(ids) do
        local r = redis.call('HMGET', RECORD .. id, 'state', 'own')
        if r[1] == 'waiting' and r[2] == '2' then
          stay[lane] = stay[lane] or {}
          table.insert(stay[lane], id)
        elseif r[1] == 'waiting' then
          finish(id, account, 'dead', 'account_removed', DEAD)
          ended = ended + 1
          accounts[account] = true
        end
      end
    end
    if redis.call('EXISTS', LANE .. lane) == 1 then left = true end
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
