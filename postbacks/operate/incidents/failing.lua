-- failing: the lanes of one page of which every attempt fails, with where they go and what is open of them. Left out are
-- lanes of accounts that stand still, and those that have failed for a moment only. An account whose row has changed may go
-- elsewhere: what failed before counts no more. Reads only.
--
-- KEYS FAILING, BACKLOG, OPEN, RECORD, LANE, LANE_STATE, DEAD_OF, STUBS_OF
-- ARGV[2] cursor of the page, 0 first   ARGV[3] lanes a page, about (ZSCAN)   ARGV[4] ms for which a lane must have failed
-- Returns {next cursor, lanes}, a lane: {lane, since when every attempt has failed, endpoint or an empty text, units open
-- (`queue/shares.py`); and of its account: dead since then, open postbacks, lanes with any}
local cursor, page, failed_ms = ARGV[2], ARGV[3], tonumber(ARGV[4])

-- units that each group of an account has open
local function units_of(account)
  local lanes = {}
  for i, group in ipairs(GROUPS) do lanes[i] = account .. '/' .. group end
  local units, open = {}, 0
  for i, value in ipairs(redis.call('HMGET', OPEN, unpack(lanes))) do
    units[lanes[i]] = tonumber(value or 0)
    if value then open = open + 1 end
  end
  return units, open
end

-- endpoint that the first one waiting goes to, or any of the group's
local function endpoint_of(route, lane)
  local group = string.match(lane, '[^/]+$')
  local first = redis.call('LINDEX', LANE .. lane, 0)
  if first then
    local r = redis.call('HMGET', RECORD .. first, 'origin', 'url', 'endpoint', 'own')
    local url, endpoint = target_of(route, group, r[1] or '', r[2] or '', r[3] or '', r[4])
    if url and endpoint then return endpoint end
  end
  return route and route[group] and route[group].endpoint or ''
end

local scanned, lanes = redis.call('ZSCAN', FAILING, cursor, 'COUNT', page), {}
for i = 1, #scanned[2], 2 do
  local lane, failing_since = scanned[2][i], tonumber(scanned[2][i + 1])
  if now - failing_since >= failed_ms and redis.call('HGET', LANE_STATE .. lane, 'failing') == '1' then
    local account = account_of(lane)
    local route = route_of(account)
    local since = math.max(failing_since, route and route.since or 0)
    if now - since >= failed_ms and not (route and (route.still or route.paused)) then
      local dead = redis.call('ZCOUNT', DEAD_OF .. account, since, '+inf')
        + redis.call('ZCOUNT', STUBS_OF .. account, since, '+inf')
      local units, lanes_open = units_of(account)
      if since == failing_since or units[lane] > 0 or dead > 0 then
        lanes[#lanes + 1] = { lane, string.format('%.0f', since), endpoint_of(route, lane), units[lane], dead,
          tonumber(redis.call('HGET', BACKLOG, account) or 0), lanes_open }
      end
    end
  end
end
return { scanned[1], lanes }
