-- retire: what waits for accounts that have been gone for long enough ends as dead, some of it a call; then their rows
-- are forgotten, once nothing of them is parked, in flight or in quarantine either. What has a URL of its own from its
-- call, and knew no account, stays: it goes to the end of its lane with a mark of this removal, and where the first marked
-- one comes up again the lane has been gone over.
--
-- KEYS FAILING, ROUTES, GONE, BACKLOG, DEAD, TOTALS, RECORD, LANE
-- ARGV[2] postbacks at most
-- Returns {how many have ended, the accounts whose postbacks they were}.
local at_most = tonumber(ARGV[2])
local AGAIN_LATER_MS = 30000 -- as what stands still is looked at
local looked, ended, accounts = 0, 0, {}
local gone = redis.call('ZRANGEBYSCORE', GONE, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 100)
for i = 1, #gone, 2 do
  local account, mark = gone[i], gone[i + 1]
  local left, stay = false, {}
  for _, group in ipairs(GROUPS) do
    local lane, over = account .. '/' .. group, false
    while looked < at_most and not over do
      local ids = redis.call('LPOP', LANE .. lane, math.min(500, at_most - looked))
      if not ids then break end
      looked = looked + #ids
      for _, id in ipairs(ids) do
        local r = redis.call('HMGET', RECORD .. id, 'state', 'own', 'stays')
        if r[1] == 'waiting' and r[2] == '2' then
          over = over or r[3] == mark
          redis.call('HSET', RECORD .. id, 'stays', mark)
          stay[lane] = stay[lane] or {}
          table.insert(stay[lane], id)
        elseif r[1] == 'waiting' then
          finish(id, account, 'dead', 'account_removed', DEAD)
          ended = ended + 1
          accounts[account] = true
        else
          pass_over(id, lane)
        end
      end
    end
    if not over and redis.call('EXISTS', LANE .. lane) == 1 then left = true end
  end
  if not left and not next(stay) and tonumber(redis.call('HGET', BACKLOG, account) or 0) > 0 then
    redis.call('ZADD', GONE, now + AGAIN_LATER_MS, account) -- behind the others
  elseif not left then
    redis.call('ZREM', GONE, account)
    redis.call('HDEL', ROUTES, account)
    for _, group in ipairs(GROUPS) do redis.call('ZREM', FAILING, account .. '/' .. group) end
  end
  append(stay)
  if looked >= at_most then break end
end
if ended > 0 then redis.call('HINCRBY', TOTALS, 'refused:account_removed', ended) end
local names = {}
for account in pairs(accounts) do names[#names + 1] = account end
return { ended, names }
