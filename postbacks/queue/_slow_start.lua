-- _slow_start: whether one more POST to an endpoint may begin, by the most that it may have open and by its slow start.
-- Stands behind _pacing.lua. What an endpoint has open is counted in ENDPOINTS, and only while there is a limit.
--
-- Slow start. An endpoint that has taken no connection for WHILE_MS is tried with one POST; each that connects lets
-- one more be open, until STARTED are. One that refuses at once harms nobody who waits: a few at a time may ask it.
-- Only what is known of a connection counts, whoever made it: an answer of 500 is its account's own.
--
-- KEYS ENDPOINTS, STARTS
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
