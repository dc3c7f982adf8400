-- _priority: which of an account's lanes goes first, what a turn costs it, and the room that is kept for the quarantine.
-- Stands in front of claim.lua.
--
-- KEYS TURNS, QUARANTINE, RECORD, LANE
local EXAMINED_MS = 5000 -- an examiner looks 20 times a second

-- turns of a group's lane beside those of its account's other lanes; of weight 0 are those that give way
local weights, equal = {}, true
local function read_weights(text) -- 'general=1 mt=0'
  for group, weight in string.gmatch(text, '(%w+)=(%d+)') do
    weights[group] = tonumber(weight)
    equal = equal and weights[group] <= 1
  end
end

-- Within an account general and MO go before MT by default: groups of weight 0 give way to those two while they
-- wait and do not fail. Returns nil if none does, else how many POSTs those could begin now.
local function urgent(account, group, may_begin)
  local need
  for _, other in ipairs({ 'general', 'mo' }) do
    if other ~= group and weights[other] ~= 0 then
      local waiting = redis.call('LLEN', LANE .. account .. '/' .. other)
      local pace = waiting > 0 and pace_of(account .. '/' .. other)
      if pace and not pace.failing then
        need = (need or 0) + (may_begin(pace) and math.min(waiting, math.max(0, pace.limit - pace.claimed)) or 0)
      end
    end
  end
  return need
end

-- What one POST of a lane costs of its account's turns: an account with two lanes has the turns of one.
local function cost_of(account, group, gate, lanes)
  local own = math.max(1, weights[group] or 1)
  if not equal then
    lanes = 0
    for _, other in ipairs(GROUPS) do
      if redis.call('EXISTS', LANE .. account .. '/' .. other) == 1 then
        lanes = lanes + math.max(1, weights[other] or 1)
      end
    end
  end
  return lanes / own / (gate and gate.weight or 1)
end

-- What is in quarantine goes before the lanes where POSTs open at a time are limited, while an examiner looks.
local reserved
local function reserved_for(name)
  if not reserved then
    reserved = {}
    local examined = tonumber(redis.call('HGET', TURNS, 'examined') or 0)
    if math.abs(now - examined) > EXAMINED_MS then return 0 end
    for _, id in ipairs(redis.call('ZRANGE', QUARANTINE, 0, 999)) do
      local r = redis.call('HMGET', RECORD .. id, 'account', 'endpoint')
      for i = 1, 2 do
        if r[i] then reserved[r[i]] = (reserved[r[i]] or 0) + 1 end
      end
    end
  end
  return reserved[name] or 0
end
