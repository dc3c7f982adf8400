-- _priority: which of an account's lanes goes first, what a turn costs its account, and the room that is kept for the quarantine.
--
-- KEYS RING_CLOCK, QUARANTINE, RECORD, LANE
local EXAMINED_MS = 5000 -- an examiner looks 20 times a second; one that has not for so long is gone

-- Weights of groups: turns of a group's lane beside those of its account's other lanes. Groups of weight 0 give way.
local weights, equal = {}, true
local function read_weights(text) -- such as 'general=1 mt=0'
  for group, weight in string.gmatch(text, '(%w+)=(%d+)') do
    weights[group] = tonumber(weight)
    equal = equal and weights[group] <= 1
  end
end

-- Returns how many POSTs of an account's general and MO lanes could begin now, to which a lane of weight 0 gives way while
-- they wait and do not fail; nil where none waits. `may_begin(lane_state)` says whether POSTs of such a lane may begin at all.
local function higher_priority_demand(account, group, may_begin)
  local demand
  for _, other in ipairs({ 'general', 'mo' }) do
    if other ~= group and weights[other] ~= 0 then
      local waiting = redis.call('LLEN', LANE .. account .. '/' .. other)
      local lane_state = waiting > 0 and lane_state_of(account .. '/' .. other)
      if lane_state and not lane_state.failing then
        local room = math.max(0, lane_state.limit - lane_state.claimed)
        demand = (demand or 0) + (may_begin(lane_state) and math.min(waiting, room) or 0)
      end
    end
  end
  return demand
end

-- Returns what one POST of a lane costs of its account's turns. An account with several lanes has the turns of one.
local function cost_of(account, group, gate, lanes)
  local weight = math.max(1, weights[group] or 1)
  if not equal then
    lanes = 0
    for _, other in ipairs(GROUPS) do
      if redis.call('EXISTS', LANE .. account .. '/' .. other) == 1 then
        lanes = lanes + math.max(1, weights[other] or 1)
      end
    end
  end
  return lanes / weight / (gate and gate.weight or 1)
end

-- Returns how many POSTs open at a time an account or an endpoint keeps free for what is in quarantine, while an examiner looks.
local reserves
local function quarantine_reserve(owner)
  if not reserves then
    reserves = {}
    local examined = tonumber(redis.call('HGET', RING_CLOCK, 'examined') or 0)
    if math.abs(now - examined) > EXAMINED_MS then return 0 end
    for _, id in ipairs(redis.call('ZRANGE', QUARANTINE, 0, 999)) do
      local r = redis.call('HMGET', RECORD .. id, 'account', 'endpoint')
      for i = 1, 2 do
        if r[i] then reserves[r[i]] = (reserves[r[i]] or 0) + 1 end
      end
    end
  end
  return reserves[owner] or 0
end
