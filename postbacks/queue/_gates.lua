-- _gates: what a POST passes before it begins, besides its lane's limit: its account's rate, the most POSTs that
-- its account and its endpoint may have open, and the slow start of an endpoint. Stands behind _shared.lua where
-- scripts.GATED names a script.
--
-- What an account has open is counted from its lanes' paces; what an endpoint has, in ENDPOINTS, and only while
-- there is a limit. A lane without room stands in WAITS of its account or endpoint until a POST there ends; one
-- that waits for its rate stands in ASIDE, by the ms at which it may go on. Accounts and endpoints stand in ASIDE
-- too while lanes wait there: each is looked at every second, should room have come about unseen.
local BURST_US = 50000 -- a loop looks for work that often (loop.LOOK_EVERY_S): what a look may catch up with
local AGAIN_MS = 1000
local ASIDE_MAX_MS = 120000 -- what lies further ahead was written before the clock was put back
local now_us = clock[1] * 1000000 + clock[2] + tonumber(ARGV[1]) * 1000

-- what an account has of its own, or false: {account, weight, interval_us, most, next_us, open}
local gates, any_paced = {}, nil
local function gate_of(account)
  local gate = gates[account]
  if gate ~= nil then return gate end
  if any_paced == nil then any_paced = redis.call('EXISTS', PACING) == 1 end
  gate = false
  local text = any_paced and redis.call('HGET', PACING, account)
  if text then
    local weight, interval_us, most = string.match(text, '^(%S+) (%d+) (%d+)')
    gate = { account = account, weight = tonumber(weight), interval_us = tonumber(interval_us), most = tonumber(most) }
    if gate.interval_us > 0 then
      gate.next_us = math.max(now_us, tonumber(redis.call('HGET', RATES, account) or 0))
      -- further ahead than any POST can have moved it: the clock was put back, or the rate was raised
      if gate.next_us > now_us + BURST_US + 2 * gate.interval_us then gate.next_us = now_us end
    end
    if gate.most > 0 then
      gate.open = 0
      for _, group in ipairs(GROUPS) do
        local f = redis.call('HMGET', PACE .. account .. '/' .. group, 'claimed', 'held')
        gate.open = gate.open + math.max(0, tonumber(f[1] or 0) - tonumber(f[2] or 0))
      end
    end
  end
  gates[account] = gate
  return gate
end

-- how many POSTs of an account may begin now, by its rate and by what it has open. The rate is exact (the generic
-- cell rate algorithm, ITU-T I.371): a POST each interval, late ones made up for within BURST_US.
local function allowed(gate, ahead_us)
  local by_rate, by_open = math.huge, math.huge
  if gate.next_us then
    by_rate = math.floor((now_us + BURST_US + ahead_us - gate.next_us) / gate.interval_us) + 1
  end
  if gate.open then by_open = gate.most - gate.open end
  return by_rate, by_open
end

-- POSTs of an account have begun
local function pass(gate, count)
  if gate.open then gate.open = gate.open + count end
  if gate.next_us and count > 0 then
    gate.next_us = gate.next_us + count * gate.interval_us
    redis.call('HSET', RATES, gate.account, string.format('%.0f', gate.next_us))
  end
end

-- Slow start. An endpoint that has taken no connection for WHILE_MS is tried with one POST; each that connects lets
-- one more be open, until STARTED are. One that refuses at once harms nobody who waits: a few at a time may ask it.
-- Only what is known of a connection counts, whoever made it: an answer of 500 is its account's own.
local WHILE_MS, REFUSING_MAX, STARTED = 10000, 10, 100
local LOST_MS = 60000 -- nothing has begun or ended for so long: what is counted as open there is most likely not
local FORGET_MS = 86400000
local UNREACHED = { connect_timeout = 1, refused = REFUSING_MAX, dns = REFUSING_MAX } -- and how many may be open then
local UNTRIED = { blocked = true, bad_url = true }

-- what is known of an endpoint that has failed to connect, or false: {since: ms when it last took a connection, or
-- first did not, last: ms when a POST there began or ended, limit: POSTs open at most, 0 while it has not failed
-- for long enough, up: 1 if it took the last one, tried: ms when the last POST began that had no connection in time,
-- by: its account}
local starts, any_start = {}, nil
local function start_of(endpoint)
  local start = starts[endpoint]
  if start ~= nil then return start end
  if any_start == nil then any_start = redis.call('EXISTS', STARTS) == 1 end
  start = false
  local text = any_start and redis.call('HGET', STARTS, endpoint)
  local since, last, limit, up, tried, by = string.match(text or '', '^(%d+) (%d+) (%d+) ([01]) (%d+) (.*)$')
  if since then
    start = { since = math.min(now, since), last = math.min(now, last), limit = tonumber(limit), up = tonumber(up),
      tried = tonumber(tried), by = by }
    if start.tried > now then start.tried = 0 end -- the clock was put back: nobody was held before that
    if start.limit == 0 and now - start.since >= WHILE_MS then start.limit = 1 end
  end
  starts[endpoint] = start
  return start
end

local function keep_start(endpoint)
  local start = starts[endpoint]
  if not start then return redis.call('HDEL', STARTS, endpoint) end
  local text = string.format('%.0f %.0f %d %d %.0f ', start.since, start.last, start.limit, start.up, start.tried)
  redis.call('HSET', STARTS, endpoint, text .. start.by)
end

-- what a POST that has ended tells about its endpoint; returns whether that has to be kept
local function learn(endpoint, outcome, account, sent_ms)
  local start, most = start_of(endpoint), UNREACHED[outcome]
  if not start and not most then return false end
  if most then
    if not start then
      any_start = true
      start = { since = now, limit = 0, tried = 0, by = '' }
      starts[endpoint] = start
      local others = redis.call('HRANDFIELD', STARTS, 2, 'WITHVALUES') -- whom nobody sends to any more are forgotten
      for i = 1, #others, 2 do
        local last = tonumber(string.match(others[i + 1], '^%d+ (%d+)') or 0)
        if now - last >= FORGET_MS then redis.call('HDEL', STARTS, others[i]) end
      end
    elseif start.limit > 0 and now - start.since >= WHILE_MS then -- others' connections may be taken all the same
      start.limit = math.min(most, start.limit + 1)
    end
    start.last, start.up = now, 0
    if outcome == 'connect_timeout' and sent_ms >= start.tried then start.tried, start.by = sent_ms, account end
  elseif start.limit == 0 or start.limit >= STARTED or start.up == 1 and now - start.since >= WHILE_MS then
    starts[endpoint] = false
  else
    start.since, start.last, start.limit, start.up = now, now, start.limit + 1, 1
  end
  return true
end

-- Whether a POST to an endpoint may begin; and, if not, whether it starts slowly. What is in quarantine is exempt from
-- that: it is little, and nothing stands for it.
local open_at = {}
local function has_room(endpoint, most, reserved, exempt)
  local start = start_of(endpoint)
  local slow = start and start.limit > 0 and not exempt
  if most == 0 and not slow then return true end
  if not open_at[endpoint] then open_at[endpoint] = tonumber(redis.call('HGET', ENDPOINTS, endpoint) or 0) end
  local open = open_at[endpoint]
  if slow then
    if open == 0 and now - start.last >= WHILE_MS then start.limit = 1 end
    if open >= start.limit and now - start.last < LOST_MS then return false, true end
  end
  return most == 0 or open + (reserved or 0) < most, slow
end

local function enter(endpoint, most)
  local start = start_of(endpoint)
  local slow = start and start.limit > 0
  if most > 0 or slow then open_at[endpoint] = redis.call('HINCRBY', ENDPOINTS, endpoint, 1) end
  if slow then
    start.last = now
    keep_start(endpoint)
  end
end

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
