-- endpoint: endpoints' counts of open POSTs, which stand while their number is limited, and the POSTs in claims,
-- in one instant; and, where asked, puts the counts right.
--
-- ARGV[2] mode (inspect | repair)   ARGV[3..] tokens of delivering loops besides those of CLAIMERS
-- Returns a row an endpoint whose count is off: {endpoint, count as noted, counted}; none where nothing is counted,
--   or more is claimed than can be counted without holding the broker up.
-- Atomic: nothing begins or ends between the count and what is written.
local mode = ARGV[2]
if redis.call('EXISTS', ENDPOINTS) == 0 then return {} end
local tokens, is_token, counted = redis.call('ZRANGE', CLAIMERS, 0, -1), {}, {}
for _, token in ipairs(tokens) do is_token[token] = true end
for i = 3, #ARGV do
  if not is_token[ARGV[i]] then tokens[#tokens + 1] = ARGV[i] end
end
local OPEN_MAX, size = 3000, 0 -- more would hold the broker up
for _, token in ipairs(tokens) do size = size + redis.call('HLEN', CLAIMS .. token) end
if size > OPEN_MAX then return {} end
for _, token in ipairs(tokens) do
  local entries = redis.call('HGETALL', CLAIMS .. token)
  for i = 1, #entries, 2 do
    local endpoint = entries[i + 1] ~= '0' and redis.call('HGET', RECORD .. entries[i], 'endpoint')
    if endpoint then counted[endpoint] = (counted[endpoint] or 0) + 1 end
  end
end

local rows, noted = {}, redis.call('HGETALL', ENDPOINTS)
for i = 1, #noted, 2 do
  local endpoint, count = noted[i], tonumber(noted[i + 1])
  -- fewer than there are: those that began before there was a limit are not counted, and end soon
  if count > (counted[endpoint] or 0) then
    rows[#rows + 1] = { endpoint, count, counted[endpoint] or 0 }
    if mode == 'repair' then redis.call('HSET', ENDPOINTS, endpoint, counted[endpoint] or 0) end
  end
end
return rows
