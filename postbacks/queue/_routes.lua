-- _routes: where an account's postbacks go now, and whether any may go. One row an account (`queue/routes.py` says what it
-- holds), read once a call.
--
-- KEYS ROUTES, DELAYED, DONE, DEAD, TOTALS
local STILL_MS = 30000 -- a lane whose account stands still is looked at again so often

-- The row of an account: {since, paused: whether nothing of it may begin until it is resumed, still: the state if not `on`,
-- version, off, general, mt, mo, pass}, each group with {url, endpoint}; false where there is none.
local routes = {}
local function route_of(account)
  local route = routes[account]
  if route ~= nil then return route end
  route = false
  local text = redis.call('HGET', ROUTES, account)
  if text then
    local lines = {}
    for line in string.gmatch(text, '([^\n]*)\n') do lines[#lines + 1] = line end
    local general = { url = lines[5], endpoint = lines[6] }
    local since, mark, ends = string.match(lines[1], '^(%d+) ?(%a*) ?(%S*)$')
    local paused = mark == 'paused' and (ends == '-' or tonumber(ends) > now)
    route = { since = tonumber(since), paused = paused, still = lines[2] ~= 'on' and lines[2], version = lines[3], off = lines[4],
      general = general, mt = general,
      mo = lines[7] ~= '' and { url = lines[7], endpoint = lines[8] } or general,
      pass = lines[9] ~= '' and { url = lines[9], endpoint = lines[10] } or general }
  end
  routes[account] = route
  return route
end

-- Returns URL and endpoint that a postback goes to now; or nil, the state in which it ends and the reason. `own` of its record:
-- '0' the account's URL, '1' and '2' the call's own. A record of version 0.1.0 has none: its URL counts as the call's own
-- where its endpoint is none of the account's, and where it was skipped it has no URL.
local function target_of(route, group, origin, url, endpoint, own)
  if not route then return url, endpoint end
  if string.find(route.off, ',' .. origin .. ',', 1, true) then return nil, 'skipped', 'origin_off' end
  if own == '1' or own == '2' then return url, endpoint end
  if not own and endpoint ~= '' and endpoint ~= route.general.endpoint and endpoint ~= route.mo.endpoint
      and endpoint ~= route.pass.endpoint then
    return url, endpoint
  end
  local target = route[group]
  if target.url == '' then return nil, 'dead', 'no_url' end
  return target.url, target.endpoint
end

-- Delays the lane of an account that stands still. Returns whether the account is to be looked up: once each time, and not
-- just after its row was written, as its writer has looked then.
local function stands_still(route, lane)
  return redis.call('ZADD', DELAYED, 'NX', now + STILL_MS, lane) == 1 and math.abs(now - route.since) >= STILL_MS / 2
end

-- Ends a waiting postback that its account wants no more or has nowhere to send to.
local function end_unsent(id, account, state, reason)
  redis.call('HINCRBY', TOTALS, state == 'skipped' and 'skipped' or 'refused:' .. reason, 1)
  finish(id, account, state, reason, state == 'dead' and DEAD or DONE)
end
