-- _pacing: what an account has of its own: a weight in turns, a rate, and the most POSTs that it may have open.
--
-- A lane that waits for its account's rate stands in DELAYED, by the ms at which it may go on.
--
-- KEYS PACING, RATES, LANE_STATE
local BURST_US = 50000 -- a loop looks for work that often (session.LOOK_EVERY_S): what a look may catch up with
local DELAY_MAX_MS = 120000 -- what lies further ahead was written before the clock was put back
local now_us = clock[1] * 1000000 + clock[2] + tonumber(ARGV[1]) * 1000

-- The POSTs that an account has open, counted from the states of its lanes.
local function open_posts_of(account)
  local open = 0
  for _, group in ipairs(GROUPS) do
    local f = redis.call('HMGET', LANE_STATE .. account .. '/' .. group, 'claimed', 'held')
    open = open + math.max(0, tonumber(f[1] or 0) - tonumber(f[2] or 0))
  end
  return open
end

-- What an account has of its own: {account, weight, interval_us: between two POSTs, most: POSTs open, next_us: when its next
-- POST counts (only with a rate), open (only with a limit)}; false where it has nothing. Read once a call.
-- Its text in PACING: weight, us between two POSTs (0: no rate), POSTs open at most (0: any number).
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
    if gate.most > 0 then gate.open = open_posts_of(account) end
  end
  gates[account] = gate
  return gate
end

-- Returns how many POSTs of an account may begin now by its rate, and how many by its limit. The rate is exact (the generic
-- cell rate algorithm, ITU-T I.371): a POST each interval, late ones made up for within BURST_US and `ahead_us`.
local function posts_allowed(gate, ahead_us)
  local by_rate, by_open = math.huge, math.huge
  if gate.next_us then
    by_rate = math.floor((now_us + BURST_US + ahead_us - gate.next_us) / gate.interval_us) + 1
  end
  if gate.open then by_open = gate.most - gate.open end
  return by_rate, by_open
end

-- Counts POSTs of an account that begin.
local function count_begun(gate, count)
  if gate.open then gate.open = gate.open + count end
  if gate.next_us and count > 0 then
    gate.next_us = gate.next_us + count * gate.interval_us
    redis.call('HSET', RATES, gate.account, string.format('%.0f', gate.next_us))
  end
end
