-- begin: begins the POSTs of held postbacks; from here on each attempt counts. An id that was begun already, whose answer was
-- lost, is answered again and counts no second attempt: its POST has not been sent.
--
-- KEYS DONE, RECORD, LANE_STATE, CLAIMS
-- ARGV[2] token   ARGV[3] POSTs that an endpoint may have open, 0 for any number
-- ARGV[4] ms of the latest POST without a connection that the loop knows of   ARGV[5..] ids
-- Returns {now_ms, rows, later, full, tried, moved}; an id that is no longer claimed is in none of them:
--   rows: a BegunRow each (rows.py), {id, number, failures, account, origin, code, created_ms, sequence, url, xml, version, own,
--     waited_ms}
--   later: ids that stay held, as their account or endpoint has no room for them yet
--   full: the endpoints that had no room
--   tried: {endpoint, ms, account} of the last POST without a connection in time, where none has been made since
--   moved: ids that stay held and are to go back to their lanes: their account sends elsewhere now, wants them no more, or
--     stands still or is paused
-- Atomic: an attempt is counted with the room that it takes.
local claims, endpoint_max, known_ms = CLAIMS .. ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local rows, later, blocked_lanes, full, endpoints, moved = {}, {}, {}, {}, {}, {}
local bytes, BYTES_MAX = 0, 4000000 -- of documents, as in claim.lua: what comes beyond them begins later

-- Whether an endpoint has just left a POST without a connection that the loop does not know of. What the loop holds may share
-- that time-out, so it hears of it before it tries another.
local function has_news(endpoint)
  local start = start_of(endpoint)
  return start and start.limit > 0 and start.up == 0 and start.tried > known_ms
end

-- Whether the next POST of a lane may begin. Within a lane none overtakes another.
local function may_begin(lane, account, endpoint)
  local gate = gate_of(account)
  if gate and not blocked_lanes[lane] then
    local by_rate, by_open = posts_allowed(gate, 0)
    blocked_lanes[lane] = by_rate < 1 or by_open < 1
  end
  if not blocked_lanes[lane] and (has_news(endpoint) or not has_room(endpoint, endpoint_max)) then
    blocked_lanes[lane], full[endpoint] = true, true
  end
  if blocked_lanes[lane] then return false end
  if gate then count_begun(gate, 1) end
  count_open(endpoint, endpoint_max)
  return true
end

for i = 5, #ARGV do
  local id = ARGV[i]
  local claimed = redis.call('HGET', claims, id)
  local record = RECORD .. id
  if claimed == '0' and redis.call('HEXISTS', record, 'cancel') == 1 then -- revoked while it was held
    local owner = redis.call('HMGET', record, 'account', 'group')
    redis.call('HDEL', claims, id)
    unclaim(owner[1] .. '/' .. owner[2], true)
    finish(id, owner[1], 'cancelled', 'revoked', DONE)
  elseif claimed then
    local r = redis.call('HMGET', record, 'attempts', 'failures', 'account', 'origin', 'code',
      'created_ms', 'sequence', 'url', 'xml', 'group', 'endpoint', 'own')
    local route = route_of(r[3])
    local number, lane = tonumber(r[1]), r[3] .. '/' .. r[10]
    endpoints[r[11]] = true
    local url, endpoint = target_of(route, r[10], r[4], r[8], r[11], r[12])
    if claimed == '0' and (endpoint ~= r[11] or route and (route.still or route.paused)) then
      moved[#moved + 1] = id
    elseif claimed == '0' and (bytes >= BYTES_MAX or not may_begin(lane, r[3], r[11])) then
      blocked_lanes[lane] = true
      later[#later + 1] = id
    else
      if claimed == '0' then
        number = number + 1
        redis.call('HSET', record, 'attempts', number, 'sent_ms', now)
        redis.call('HSET', claims, id, 1)
        if redis.call('HINCRBY', LANE_STATE .. lane, 'held', -1) < 0 then redis.call('HSET', LANE_STATE .. lane, 'held', 0) end
      end
      local version = route and route.version or ''
      if endpoint ~= r[11] then
        version = 'moved' -- begun before, unheard: no version agrees with the record's URL, so that it goes back to its lane
      elseif url ~= r[8] then
        redis.call('HSET', record, 'url', url)
        r[8] = url
      end
      bytes = bytes + #r[9]
      rows[#rows + 1] = { id, number, r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], version, r[12] or '', -1 }
    end
  end
end
local full_endpoints, tried = {}, {}
for endpoint in pairs(full) do full_endpoints[#full_endpoints + 1] = endpoint end
for endpoint in pairs(endpoints) do
  local start = start_of(endpoint)
  if start and start.up == 0 and start.tried > 0 then tried[#tried + 1] = { endpoint, start.tried, start.by } end
end
publish_changes()
return { now, rows, later, full_endpoints, tried, moved }
