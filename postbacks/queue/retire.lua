-- retire: ends what waits for accounts that have been gone for long enough as dead, a part of it each call; then forgets their
-- rows and pauses, once nothing of them is parked, in flight or in quarantine. What has a URL of its own from its call, and knew no
-- account, stays: it goes to the end of its lane with a mark of this removal, and where the first marked one comes up again
-- the whole lane was gone over.
--
-- KEYS FAILING, ROUTES, GONE, PAUSED, PAUSES, BACKLOG, DEAD, TOTALS, RECORD, LANE
-- ARGV[2] postbacks at most
-- Returns {how many have ended, the accounts whose postbacks they were}.
-- Atomic: a postback waits in its lane or is dead.
local at_most = tonumber(ARGV[2])
local LOOK_AGAIN_LATER_MS = 30000 -- as often as what stands still is looked at
local visited, ended, accounts = 0, 0, {}
local gone = redis.call('ZRANGEBYSCORE', GONE, '-inf', now, 'WITHSCORES', 'LIMIT', 0, 100)
for i = 1, #gone, 2 do
  local account, mark = gone[i], gone[i + 1]
  local any_left, staying = false, {}
  for _, group in ipairs(GROUPS) do
    local lane, is_done = account .. '/' .. group, false
    while visited < at_most and not is_done do
      local ids = redis.call('LPOP', LANE .. lane, math.min(500, at_most - visited))
      if not ids then break end
      visited = visited + #ids
      for _, id in ipairs(ids) do
        local r = redis.call('HMGET', RECORD .. id, 'state', 'own', 'stays')
        if r[1] == 'waiting' and r[2] == '2' then
          is_done = is_done or r[3] == mark
          redis.call('HSET', RECORD .. id, 'stays', mark)
          staying[lane] = staying[lane] or {}
          table.insert(staying[lane], id)
        elseif r[1] == 'waiting' then
          finish(id, account, 'dead', 'account_removed', DEAD)
          ended = ended + 1
          accounts[account] = true
        else
          end_cancelled(id, lane)
        end
      end
    end
    if not is_done and redis.call('EXISTS', LANE .. lane) == 1 then any_left = true end
  end
  if not any_left and not next(staying) and tonumber(redis.call('HGET', BACKLOG, account) or 0) > 0 then
    redis.call('ZADD', GONE, now + LOOK_AGAIN_LATER_MS, account) -- behind the others
  elseif not any_left then
    redis.call('ZREM', GONE, account)
    redis.call('HDEL', ROUTES, account)
    redis.call('HDEL', PAUSES, account)
    redis.call('ZREM', PAUSED, account)
    for _, group in ipairs(GROUPS) do redis.call('ZREM', FAILING, account .. '/' .. group) end
  end
  append(staying)
  if visited >= at_most then break end
end
if ended > 0 then redis.call('HINCRBY', TOTALS, 'refused:account_removed', ended) end
local names = {}
for account in pairs(accounts) do names[#names + 1] = account end
publish_changes()
return { ended, names }
