-- claim: a delivering loop takes postbacks from the ready lanes, in turn, under its lease.
-- A lane gets at most `limit` transfers over all workers; a failing one gets a single transfer and
-- may have more ids held beside it, which a shared connect time-out settles at once. Suspect lanes
-- (new, slow, failing) share the room that the caller leaves for them. Room is kept for everybody:
-- a lane may have no more transfers than a 64th of what is still free (the dynamic threshold of
-- shared-memory switches, Choudhury and Hahne 1998).
--
-- ARGV[2] token   ARGV[3] lease, ms   ARGV[4] transfers to begin at most
-- ARGV[5] of them for suspects at most   ARGV[6] transfers that the caller has free
-- ARGV[7] ids held at most   ARGV[8] ids held a failing lane at most
-- ARGV[9..] lanes that have become slow since the last call
-- Returns {now, begun, held}: begun rows {id, lane, suspect, number, failures, account, origin, code,
--   created_ms, sequence, url, xml}, held rows {id, lane, endpoint, attempts, failures, account,
--   origin, code}.
-- Atomic: an id is in its lane or in the claims.
local token, lease_ms, at_most, suspects_max = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local free, held_max, held_per_lane = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local claims = CLAIMS .. token
local begun, held, entered = {}, {}, {}

redis.call('ZADD', CLAIMERS, now + lease_ms, token)

for i = 9, #ARGV do
  local lane = ARGV[i]
  if redis.call('HGET', PACE .. lane, 'suspect') == '0' then
    redis.call('HSET', PACE .. lane, 'suspect', 1, 'tag', 0)
    if redis.call('ZREM', TRUSTED, lane) == 1 then make_ready(lane) end
  end
end

-- Within an account general and MO go before MT: while a sibling that does not fail waits, MT keeps only one
-- transfer, so that it neither delays the sibling nor starves.
local function urgent_sibling_waits(lane)
  local account, group = string.match(lane, '^(.*)/([^/]+)$')
  if group ~= 'mt' then return false end
  for _, sibling in ipairs({ account .. '/general', account .. '/mo' }) do
    if redis.call('EXISTS', LANE .. sibling) == 1 and not pace_of(sibling).failing then return true end
  end
  return false
end

local function begin(id, lane, pace)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'state', 'attempts', 'failures', 'account', 'origin', 'code',
    'created_ms', 'sequence', 'url', 'xml')
  if r[1] ~= 'waiting' then return 0 end
  local number = r[2] + 1
  redis.call('HSET', record, 'state', 'sending', 'attempts', number, 'sent_ms', now)
  entered[#entered + 1] = id
  entered[#entered + 1] = 1
  begun[#begun + 1] = { id, lane, pace.suspect and 1 or 0, number, r[3], r[4], r[5], r[6], r[7], r[8], r[9], r[10] }
  return 1
end

local function hold(id, lane)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'state', 'endpoint', 'attempts', 'failures', 'account', 'origin', 'code')
  if r[1] ~= 'waiting' then return 0 end
  redis.call('HSET', record, 'state', 'sending')
  entered[#entered + 1] = id
  entered[#entered + 1] = 0
  held[#held + 1] = { id, lane, r[2], r[3], r[4], r[5], r[6], r[7] }
  return 1
end

local function serve(ring, name, room)
  local set_aside, turn = {}, nil -- lanes that have no room of their own just now: seen once a call
  while room > 0 do
    local head = redis.call('ZPOPMIN', ring)
    if #head == 0 then break end
    local lane, tag = head[1], tonumber(head[2])
    local waiting = redis.call('LLEN', LANE .. lane)
    local pace = pace_of(lane)
    if waiting > 0 and claimable(pace) then
      local open, keep = 1, 0
      if pace.failing then
        keep = math.min(waiting - 1, held_per_lane - 1, held_max - #held)
      else
        local limit = math.min(pace.limit, math.max(1, math.floor((free - #begun) / 64)))
        if urgent_sibling_waits(lane) then limit = 1 end
        open = math.min(waiting, limit - pace.claimed, room)
      end
      local taken = 0
      if open > 0 then
        for _, id in ipairs(redis.call('LPOP', LANE .. lane, open)) do
          local count = begin(id, lane, pace)
          taken, room = taken + count, room - count
        end
        if keep > 0 then
          for _, id in ipairs(redis.call('LPOP', LANE .. lane, keep)) do taken = taken + hold(id, lane) end
        end
        -- what counts claims is not forgotten while there are any
        if pace.claimed == 0 then redis.call('PERSIST', PACE .. lane) end
        pace.claimed, turn = pace.claimed + taken, tag
        redis.call('HSET', PACE .. lane, 'claimed', pace.claimed, 'tag', tag + math.max(1, taken))
      end
      if open <= 0 then
        set_aside[#set_aside + 1] = { tag, lane }
      elseif waiting > open + keep and claimable(pace) then
        redis.call('ZADD', ring, tag + math.max(1, taken), lane)
      end
    end
  end
  if turn then redis.call('HSET', TURNS, name, turn) end
  for _, entry in ipairs(set_aside) do redis.call('ZADD', ring, entry[1], entry[2]) end
end

-- suspects first, but at most a quarter of the call: a new account is a suspect and must not wait
-- behind everybody's backlog
serve(SUSPECT, 'suspect', math.min(suspects_max, math.ceil(at_most / 4)))
serve(TRUSTED, 'trusted', at_most - #begun)
if #begun < at_most then serve(SUSPECT, 'suspect', math.min(suspects_max, at_most) - #begun) end
call_many('HSET', claims, entered)
return { now, begun, held }
