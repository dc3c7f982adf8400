-- failing: the lanes of one page of which every attempt fails, with where they go and what is open of them. Left out are
-- lanes of accounts that stand still, and those that have failed for a moment only. Reads only.
--
-- KEYS FAILING, BACKLOG, OPEN, RECORD, LANE, LANE_STATE, DEAD_OF, STUBS_OF
-- ARGV[2] cursor of the page, 0 first   ARGV[3] lanes a page, about (ZSCAN)   ARGV[4] ms for which a lane must have failed
-- Returns {next cursor, lanes}, a lane: {lane, since when every attempt has failed, endpoint or an empty text, units open
-- (`queue/shares.py`); and of its account: dead since then, open postbacks, lanes with any}
local cursor, page, failed_ms = ARGV[2], ARGV[3], tonumber(ARGV[4])

-- how many lanes of an account have anything open
local function lanes_open(account)
  local count = 0
  for _, group in ipairs(GROUPS) do count = count + redis.call('HEXISTS', OPEN, account .. '/' .. group) end
  return count
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
  local lane, since = scanned[2][i], scanned[2][i + 1]
  if now - tonumber(since) >= failed_ms and redis.call('HGET', LANE_STATE .. lane, 'failing') == '1' then
    local account = account_of(lane)
    local route = route_of(account)
    if not (route and (route.still or route.paused)) then
      local dead = redis.call('ZCOUNT', DEAD_OF .. account, since, '+inf')
        + redis.call('ZCOUNT', STUBS_OF .. account, since, '+inf')
      lanes[#lanes + 1] = { lane, since, endpoint_of(route, lane),
        tonumber(redis.call('HGET', OPEN, lane) or 0), dead, tonumber(redis.call('HGET', BACKLOG, account) or 0),
        lanes_open(account) }
    end
  end
end
return { scanned[1], lanes }
