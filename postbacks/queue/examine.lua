-- examine: an examiner takes postbacks out of the quarantine under its lease: a few at a time, or one that is to be tried alone
-- while the examiner has nothing else in flight. One whose account or endpoint has no room waits; of an account's rate it takes
-- the next POST before the account's lanes can.
--
-- KEYS RING_CLOCK, PARKED, QUARANTINE, CLAIMERS, RECORD, LANE_STATE, CLAIMS
-- ARGV[2] token   ARGV[3] lease, ms   ARGV[4] postbacks that are a few
-- ARGV[5] POSTs that an endpoint may have open, 0 for any number
-- ARGV[6] ms for which what waits for an account that is gone is kept
-- Returns {now, begun, later, still, ended}: begun and ended as claim's; later: how many of those looked at wait for room; still:
--   accounts that stand still, to be looked up. What is theirs, or a paused account's, is parked meanwhile, so that no examiner
--   waits for it.
-- Atomic: an id is in the quarantine or in the claims.
local token, lease_ms, few, endpoint_max = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local keep_ms = tonumber(ARGV[6])
local claims = CLAIMS .. token
local begun, later, still, ended = {}, 0, {}, {}

redis.call('ZADD', CLAIMERS, now + lease_ms, token)
redis.call('HSET', RING_CLOCK, 'examined', now) -- claim keeps room for the quarantine while somebody looks

local function finish_unsent(id, account, origin, code, state, reason)
  redis.call('ZREM', QUARANTINE, id)
  end_unsent(id, account, state, reason)
  ended[#ended + 1] = { id, account, origin, code, state, reason }
end

-- Begins the POST of an id. Returns 1, 0 if there is no room for it, nil if there is nothing to begin.
local function begin(id, claimed_as)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'state', 'attempts', 'failures', 'account', 'origin', 'code',
    'created_ms', 'sequence', 'url', 'xml', 'group', 'endpoint', 'own')
  if r[1] ~= 'waiting' then return redis.call('ZREM', QUARANTINE, id) and nil end
  local route = route_of(r[4])
  local lane = r[4] .. '/' .. r[11]
  if route and route.still == 'gone' and now - route.since >= keep_ms then
    if r[13] ~= '2' then return finish_unsent(id, r[4], r[5], r[6], 'dead', 'account_removed') end
    route = false -- its URL is its call's own: it needs no account
  end
  if route and (route.still or route.paused) then
    redis.call('ZREM', QUARANTINE, id)
    redis.call('HSET', record, 'state', 'parked', 'next_ms', now + STILL_MS, 'suspicion', 'alone')
    redis.call('ZADD', PARKED, now + STILL_MS, id)
    changed[#changed + 1] = id
    if not route.paused and stands_still(route, lane) then still[#still + 1] = r[4] end
    return nil
  end
  local url, endpoint, reason = target_of(route, r[11], r[5], r[9], r[12], r[13])
  if not url then return finish_unsent(id, r[4], r[5], r[6], endpoint, reason) end
  local gate = gate_of(r[4])
  if gate then
    local by_rate, by_open = posts_allowed(gate, gate.interval_us)
    if by_rate < 1 or by_open < 1 then return 0 end
  end
  if not has_room(endpoint, endpoint_max, 0, true) then return 0 end
  if gate then count_begun(gate, 1) end
  count_open(endpoint, endpoint_max)
  local number = r[2] + 1
  redis.call('ZREM', QUARANTINE, id)
  redis.call('HSET', record, 'state', 'sending', 'attempts', number, 'sent_ms', now, 'url', url,
    'endpoint', endpoint)
  redis.call('HSET', claims, id, claimed_as)
  redis.call('HINCRBY', LANE_STATE .. lane, 'claimed', 1)
  redis.call('PERSIST', LANE_STATE .. lane) -- it counts claims: it must not expire
  begun[#begun + 1] = { id, lane, 1, number, r[3], r[4], r[5], r[6], r[7], r[8], url, r[10],
    route and route.version or '', r[13] or '', -1 }
  return 1
end

local in_flight = redis.call('HVALS', claims)
if in_flight[1] == '2' then return { now, begun, 0, still, ended } end -- what it tries is to be alone
local part_size = 10 * few
local parts = math.ceil(redis.call('ZCARD', QUARANTINE) / part_size)

local function look_at(part)
  local entries = redis.call('ZRANGE', QUARANTINE, part * part_size, (part + 1) * part_size - 1, 'WITHSCORES')
  for i = 1, #entries, 2 do
    local alone = tonumber(entries[i + 1]) == ALONE
    if #in_flight + #begun >= (alone and 1 or few) then break end
    if begin(entries[i], alone and '2' or '1') == 0 then later = later + 1 end
  end
end

look_at(0)
-- what waits for one account's room must not keep the others back: look at any part, another one each time
if #begun == 0 and parts > 1 then look_at(1 + clock[2] % (parts - 1)) end
publish_changes()
return { now, begun, later, still, ended }
