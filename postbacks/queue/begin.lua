-- begin: held postbacks whose POST is about to begin; from here on an attempt counts. Asked again (the
-- answer was lost), it counts none: the attempt that it began the first time has not been sent.
--
-- KEYS DONE, RECORD, PACE, CLAIMS
-- ARGV[2] token   ARGV[3] POSTs that an endpoint may have open, 0 for any number
-- ARGV[4] ms of the latest POST without a connection that the loop knows of   ARGV[5..] ids
-- Returns {now, rows, later, full, tried, moved}: rows as claim's begun rows without lane and suspect: {id, number, failures,
--   account, origin, code, created_ms, sequence, url, xml, version, own, waited_ms}; later: ids that stay held, as their account or
--   endpoint has no room for them yet; full: the endpoints that had none; tried: {endpoint, ms, account} of the
--   last POST without a connection in time, where none has been made since; moved: ids that stay held and are to go back to their
--   lanes, as their account sends elsewhere now, wants them no more, or stands still. An id that is no longer claimed is in
--   none.
local claims, endpoint_max, told_ms = CLAIMS .. ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local rows, later, full, shut, asked, moved = {}, {}, {}, {}, {}, {}
local bytes, BYTES_MAX = 0, 4000000 -- of documents, as in claim.lua: what is above it begins later

-- a POST that the loop does not know of may stand for what it holds: it is told before it tries another
local function untold(endpoint)
  local start = start_of(endpoint)
  return start and start.limit > 0 and start.up == 0 and start.tried > told_ms
end

-- whether it may begin; of a lane nothing overtakes
local function may_begin(lane, account, endpoint)
  local gate = gate_of(account)
  if gate and not full[lane] then
    local by_rate, by_open = allowed(gate, 0)
    full[lane] = by_rate < 1 or by_open < 1
  end
  if not full[lane] and (untold(endpoint) or not has_room(endpoint, endpoint_max)) then
    full[lane], shut[endpoint] = true, true
  end
  if full[lane] then return false end
  if gate then pass(gate, 1) end
  enter(endpoint, endpoint_max)
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
    asked[r[11]] = true
    local url, endpoint = target_of(route, r[10], r[4], r[8], r[11], r[12])
    if claimed == '0' and (endpoint ~= r[11] or route and route.still) then
      moved[#moved + 1] = id
    elseif claimed == '0' and (bytes >= BYTES_MAX or not may_begin(lane, r[3], r[11])) then
      full[lane] = true
      later[#later + 1] = id
    else
      if claimed == '0' then
        number = number + 1
        redis.call('HSET', record, 'attempts', number, 'sent_ms', now)
        redis.call('HSET', claims, id, 1)
        if redis.call('HINCRBY', PACE .. lane, 'held', -1) < 0 then redis.call('HSET', PACE .. lane, 'held', 0) end
      end
      local version = route and route.version or ''
      if endpoint ~= r[11] then
        version = 'moved' -- begun before, unheard: the URL in the record is of no row that stands, so it is turned back
      elseif url ~= r[8] then
        redis.call('HSET', record, 'url', url)
        r[8] = url
      end
      bytes = bytes + #r[9]
      rows[#rows + 1] = { id, number, r[2], r[3], r[4], r[5], r[6], r[7], r[8], r[9], version, r[12] or '', -1 }
    end
  end
end
local endpoints = {}
for endpoint in pairs(shut) do endpoints[#endpoints + 1] = endpoint end
local tried = {}
for endpoint in pairs(asked) do
  local start = start_of(endpoint)
  if start and start.up == 0 and start.tried > 0 then tried[#tried + 1] = { endpoint, start.tried, start.by } end
end
return { now, rows, later, endpoints, tried, moved }
