-- _slow_start: whether one more POST to an endpoint may begin, by the most that it may have open and by its slow start.
--
-- An endpoint that has taken no connection for WHILE_MS is tried with one POST; each POST that connects lets one more be open,
-- up to STARTED. One that refuses at once keeps nobody waiting, so a few at a time may ask it. Only connections count, whoever
-- made them: an answer of 500 is its account's own. What an endpoint has open is counted in ENDPOINTS, and only while there
-- is a limit or a slow start.
--
-- KEYS ENDPOINTS, STARTS
local WHILE_MS, REFUSING_MAX, STARTED = 10000, 10, 100
local LOST_MS = 60000 -- nothing has begun or ended for so long: what is counted as open is most likely lost
local FORGET_MS = 86400000
local UNREACHED = { connect_timeout = 1, refused = REFUSING_MAX, dns = REFUSING_MAX } -- outcome -> POSTs that may be open then
local UNTRIED = { blocked = true, bad_url = true } -- outcomes that say nothing of the endpoint

-- The one reader of an entry of STARTS: {since: ms when the endpoint last took a connection, or first did not, last: ms when a
-- POST there began or ended, limit: POSTs open at most, 0 while it has not failed for long enough, up: 1 if it took the last
-- connection, tried: ms when the last POST began that had no connection in time, by: that POST's account}; nil for no entry.
local function parse_start(text)
  local since, last, limit, up, tried, by = string.match(text or '', '^(%d+) (%d+) (%d+) ([01]) (%d+) (.*)$')
  return since and { since = tonumber(since), last = tonumber(last), limit = tonumber(limit), up = tonumber(up),
    tried = tonumber(tried), by = by }
end

-- What is known of an endpoint that has failed to connect, or false. Read once a call.
local starts, any_start = {}, nil
local function start_of(endpoint)
  local start = starts[endpoint]
  if start ~= nil then return start end
  if any_start == nil then any_start = redis.call('EXISTS', STARTS) == 1 end
  start = any_start and parse_start(redis.call('HGET', STARTS, endpoint) or nil) or false
  if start then
    start.since, start.last = math.min(now, start.since), math.min(now, start.last)
    if start.tried > now then start.tried = 0 end -- the clock was put back: nobody was held before that
    if start.limit == 0 and now - start.since >= WHILE_MS then start.limit = 1 end
  end
  starts[endpoint] = start
  return start
end

local function save_start(endpoint)
  local start = starts[endpoint]
  if not start then return redis.call('HDEL', STARTS, endpoint) end
  local text = string.format('%.0f %.0f %d %d %.0f ', start.since, start.last, start.limit, start.up, start.tried)
  redis.call('HSET', STARTS, endpoint, text .. start.by)
end

-- Drops two random entries if nothing was sent there for a day, so that endpoints nobody uses any more do not stay.
local function forget_old_starts()
  local entries = redis.call('HRANDFIELD', STARTS, 2, 'WITHVALUES')
  for i = 1, #entries, 2 do
    local start = parse_start(entries[i + 1])
    if not start or now - start.last >= FORGET_MS then redis.call('HDEL', STARTS, entries[i]) end
  end
end

-- Learns from the outcome of a POST whether its endpoint takes connections. Returns whether `save_start` has to follow.
local function record_connect_result(endpoint, outcome, account, sent_ms)
  local start, most = start_of(endpoint), UNREACHED[outcome]
  if not start and not most then return false end
  if most then
    if not start then
      any_start = true
      start = { since = now, limit = 0, tried = 0, by = '' }
      starts[endpoint] = start
      forget_old_starts()
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

-- Returns whether a POST to an endpoint may begin; and, if not, whether its slow start is why. `most` POSTs may be open there
-- (0: any number), of which `reserved` are kept free. What is in quarantine is exempt from the slow start: it is little,
-- and nothing is held behind it.
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

-- Counts a POST to an endpoint that begins.
local function count_open(endpoint, most)
  local start = start_of(endpoint)
  local slow = start and start.limit > 0
  if most > 0 or slow then open_at[endpoint] = redis.call('HINCRBY', ENDPOINTS, endpoint, 1) end
  if slow then
    start.last = now
    save_start(endpoint)
  end
end
