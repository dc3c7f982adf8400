-- _waiting: lanes that wait for room at an account or an endpoint, until a POST there ends.
--
-- A lane without room stands in WAITING_FOR_ROOM of its account or endpoint. Accounts and endpoints stand in DELAYED while
-- lanes wait there: each is looked at every second, in case room has come about unseen.
--
-- KEYS DELAYED, ENDPOINTS, STARTS, RECORD, WAITING_FOR_ROOM
local LOOK_AGAIN_MS = 1000

-- Lets a lane wait for a POST to end, of an account or at an endpoint (`owner`).
local function wait_for_room(lane, owner)
  redis.call('ZADD', WAITING_FOR_ROOM .. owner, 'NX', now_us, lane)
  redis.call('ZADD', DELAYED, 'NX', now + LOOK_AGAIN_MS, owner)
end

-- Lets lanes that wait for room at an account or an endpoint take turns again, those first that have waited longest. Returns
-- how many.
local function requeue_waiting(owner, count)
  local popped = redis.call('ZPOPMIN', WAITING_FOR_ROOM .. owner, count)
  for i = 1, #popped, 2 do make_ready(popped[i]) end
  return #popped / 2
end

-- Lets all lanes of an account take turns again, as the rules by which they wait have changed.
local function requeue_account(account)
  redis.call('DEL', WAITING_FOR_ROOM .. account)
  redis.call('ZREM', DELAYED, account)
  for _, group in ipairs(GROUPS) do
    local lane = account .. '/' .. group
    redis.call('ZREM', DELAYED, lane)
    make_ready(lane)
  end
end

-- Counts POSTs to an endpoint that have ended. Nothing is counted where there was no limit.
local function count_closed(endpoint, count)
  if redis.call('HEXISTS', ENDPOINTS, endpoint) == 0 then return end
  if redis.call('HINCRBY', ENDPOINTS, endpoint, -count) <= 0 then redis.call('HDEL', ENDPOINTS, endpoint) end
  requeue_waiting(endpoint, count)
end

-- Collects postbacks that a script takes from claims while their POSTs are open: `add` each with its outcome, where that is
-- known; `finish` once the states of their lanes are written, so that who waits for their room takes turns again.
local function closing_posts()
  local watched = redis.call('EXISTS', DELAYED, ENDPOINTS, STARTS) > 0
  local is_counted = watched and redis.call('EXISTS', ENDPOINTS) == 1
  local any_delayed = watched and redis.call('EXISTS', DELAYED) == 1
  any_start = watched and redis.call('EXISTS', STARTS) == 1
  local accounts, endpoints, to_save = {}, {}, {}
  return {
    add = function(id, account, endpoint, outcome)
      local is_evidence = outcome and not UNTRIED[outcome] and (any_start or UNREACHED[outcome])
      if not watched and not is_evidence then return end
      if any_delayed then accounts[account] = true end
      if is_counted or is_evidence then
        local sent_ms
        if not endpoint then
          local r = redis.call('HMGET', RECORD .. id, 'endpoint', 'sent_ms')
          endpoint, sent_ms = r[1], tonumber(r[2] or 0)
        end
        if endpoint and is_counted then endpoints[endpoint] = (endpoints[endpoint] or 0) + 1 end
        if endpoint and is_evidence and record_connect_result(endpoint, outcome, account, sent_ms) then
          to_save[endpoint] = true
        end
      end
    end,
    finish = function()
      for endpoint in pairs(to_save) do save_start(endpoint) end
      for endpoint, count in pairs(endpoints) do count_closed(endpoint, count) end
      for account in pairs(accounts) do requeue_waiting(account, #GROUPS) end
    end,
  }
end
