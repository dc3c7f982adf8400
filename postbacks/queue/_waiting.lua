-- _waiting: lanes that wait for room at an account or an endpoint. Stands behind _slow_start.lua.
--
-- A lane without room stands in WAITS of its account or endpoint until a POST there ends. Accounts and endpoints stand in
-- ASIDE while lanes wait there: each is looked at every second, should room have come about unseen.
--
-- KEYS ASIDE, ENDPOINTS, STARTS, RECORD, WAITS
local AGAIN_MS = 1000

-- a lane waits for a POST to end, of an account or at an endpoint
local function wait_for_room(lane, place)
  redis.call('ZADD', WAITS .. place, 'NX', now_us, lane)
  redis.call('ZADD', ASIDE, 'NX', now + AGAIN_MS, place)
end

-- lanes that wait for room at an account or an endpoint take turns again, the one first that has waited longest;
-- returns how many
local function wake(place, count)
  local woken = redis.call('ZPOPMIN', WAITS .. place, count)
  for i = 1, #woken, 2 do make_ready(woken[i]) end
  return #woken / 2
end

-- what waits for an account by rules that have changed takes turns again
local function take_turns_again(account)
  redis.call('DEL', WAITS .. account)
  redis.call('ZREM', ASIDE, account)
  for _, group in ipairs(GROUPS) do
    local lane = account .. '/' .. group
    redis.call('ZREM', ASIDE, lane)
    make_ready(lane)
  end
end

-- POSTs to an endpoint have ended; nothing is counted where there was no limit
local function leave(endpoint, count)
  if redis.call('HEXISTS', ENDPOINTS, endpoint) == 0 then return end
  if redis.call('HINCRBY', ENDPOINTS, endpoint, -count) <= 0 then redis.call('HDEL', ENDPOINTS, endpoint) end
  wake(endpoint, count)
end

-- postbacks that a script has taken from claims where their POSTs were open, for what waits for their room; and
-- what came of them, where that is known
local function leaving()
  local watched = redis.call('EXISTS', ASIDE, ENDPOINTS, STARTS) > 0
  local counted = watched and redis.call('EXISTS', ENDPOINTS) == 1
  local waited = watched and redis.call('EXISTS', ASIDE) == 1
  any_start = watched and redis.call('EXISTS', STARTS) == 1
  local accounts, endpoints, learnt = {}, {}, {}
  return {
    note = function(id, account, endpoint, outcome)
      local tells = outcome and not UNTRIED[outcome] and (any_start or UNREACHED[outcome])
      if not watched and not tells then return end
      if waited then accounts[account] = true end
      if counted or tells then
        local sent_ms
        if not endpoint then
          local r = redis.call('HMGET', RECORD .. id, 'endpoint', 'sent_ms')
          endpoint, sent_ms = r[1], tonumber(r[2] or 0)
        end
        if endpoint and counted then endpoints[endpoint] = (endpoints[endpoint] or 0) + 1 end
        if endpoint and tells and learn(endpoint, outcome, account, sent_ms) then learnt[endpoint] = true end
      end
    end,
    finish = function() -- once the paces are written
      for endpoint in pairs(learnt) do keep_start(endpoint) end
      for endpoint, count in pairs(endpoints) do leave(endpoint, count) end
      for account in pairs(accounts) do wake(account, #GROUPS) end
    end,
  }
end
