-- claim: a delivering loop takes postbacks from the ready lanes, in turn, under its lease.
-- A lane gets at most `limit` transfers over all workers; a failing one gets a single transfer and
-- may have more ids held beside it, which a shared connect time-out settles at once. Suspect lanes
-- (new, slow, failing) share the room that the caller leaves for them, the new ones before the others. Room is
-- kept for everybody: a lane may have no more transfers than a 64th of what is still free (the dynamic threshold
-- of shared-memory switches, Choudhury and Hahne 1998).
--
-- KEYS READY_TRUSTED, READY_SUSPECT, TURNS, PARKED, ASIDE, CLAIMERS, RECORD, LANE, PACE, CLAIMS, WAITS
-- ARGV[2] token   ARGV[3] lease, ms   ARGV[4] transfers to begin at most
-- ARGV[5] of them for suspects at most   ARGV[6] transfers that the caller has free
-- ARGV[7] ids held at most   ARGV[8] ids held a failing lane at most
-- ARGV[9] POSTs that an endpoint may have open, 0 for any number   ARGV[10] weights of groups: 'general=1 mt=0'
-- ARGV[11] suspects up to which slow and failing ones are begun   ARGV[12] new ones at most
-- ARGV[13] new ones up to which those are begun that have waited for more than a second
-- ARGV[14..] lanes that have become slow since the last call
-- Returns {now, begun, held, again_ms, ended, still}: begun rows {id, lane, 0 trusted, 1 slow or failing, 2 new, number,
--   failures, account, origin, code, created_ms, sequence, url, xml, version of its account's row, own, waited_ms}, held
--   rows {id, lane, endpoint, attempts, failures, account,
--   origin, code}; again_ms until the first lane that waits for its rate or for room may go on, or, where few loops
--   claim, the first parked postback is due, whichever is first; 0 where it stopped short; -1 without any; ended rows {id, account, origin, code, state,
--   reason} of what its account wants no more or has no URL for; still: accounts whose lanes were put aside as they
--   stand still, to be looked up. waited_ms: how long a first POST has waited for us, -1 where that cannot be said.
-- Atomic: an id is in its lane or in the claims.
local token, lease_ms, at_most, suspects_max = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local free, held_max, held_per_lane = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local endpoint_max = tonumber(ARGV[9])
local troubled_max, new_max, waited_max = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local WAITED_MS = 1000
local DUE_MAX = 500 -- bounds how long it blocks the broker; what shared a time-out is due at once (commit.lua)
local DUE_LOOK_MS = 50 -- what is due soon brings no loop to look more often than it does anyway (LOOK_EVERY_S)
local DUE_LOOKERS = 2 -- loops that stay for what is due soon; if one hangs there is another
-- What one call looks at, so that no number of lanes makes it long; it says where it stopped short of them (again_ms).
local LOOKED_MAX, HELD_MAX, BYTES_MAX = 250, 1000, 4000000 -- lanes a ring; ids; of documents
local bytes, cut = 0, false
local claims = CLAIMS .. token
local begun, held, entered, ended, still = {}, {}, {}, {}, {}

read_weights(ARGV[10])

redis.call('ZADD', CLAIMERS, now + lease_ms, token)

for i = 14, #ARGV do
  local lane = ARGV[i]
  if redis.call('HGET', PACE .. lane, 'suspect') == '0' then
    redis.call('HSET', PACE .. lane, 'suspect', 1, 'tag', 0, 'behind', 1)
    if redis.call('ZREM', READY_TRUSTED, lane) == 1 then make_ready(lane) end
  end
end

-- What is due now leaves now, not at the next tick.
release_due(DUE_MAX)

-- What has waited for its rate or for room takes turns again.
local aside = redis.call('ZRANGE', ASIDE, 0, 0)
local woken_most = 200 -- lanes
local function come_back(from, to)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', ASIDE, from, to, 'LIMIT', 0, 200)) do
    if woken_most <= 0 then break end
    woken_most = woken_most - 1
    redis.call('ZREM', ASIDE, name)
    if string.match(name, '^[^/]+/[^/]+$') then
      make_ready(name)
    else
      local free_there, slow = has_room(name, endpoint_max)
      local room = slow and 50 or free_there and 10 or 0 -- where it starts slowly they are held
      local gate = not string.find(name, '://', 1, true) and gate_of(name)
      if gate and gate.open then room = gate.most - gate.open end
      if room > 0 then woken_most = woken_most - wake(name, math.min(room, woken_most + 1)) end
      if redis.call('EXISTS', WAITS .. name) == 1 then redis.call('ZADD', ASIDE, now + AGAIN_MS, name) end
    end
  end
end
if aside[1] then
  come_back('-inf', now)
  come_back('(' .. now + ASIDE_MAX_MS, '+inf')
end

-- whether POSTs of a lane's ring may begin at all in this call
local function may_begin(pace)
  return not pace.suspect or suspects_max > 0 and (pace.new and new_max or troubled_max) > 0
end

-- How many of `count` POSTs an account lets a lane begin now; where none, the lane is put aside. What urgent
-- lanes of the account need is left to them.
local function let_through(gate, lane, count, need)
  local by_rate, by_open = allowed(gate, 0)
  if gate.open then by_open = by_open - reserved_for(gate.account) end
  if by_rate - need < 1 then
    local at_ms = math.ceil((gate.next_us + need * gate.interval_us - BURST_US) / 1000)
    redis.call('ZADD', ASIDE, math.min(at_ms, now + ASIDE_MAX_MS), lane)
    return 0
  end
  if by_open - need < 1 then wait_for_room(lane, gate.account) end
  return math.max(0, math.min(count, by_rate - need, by_open - need))
end

-- the endpoint that a postback goes to now, its record following its account; nil where it has ended instead
local function aim(id, account, origin, code, route, group, url, endpoint, own)
  local to, at, reason = target_of(route, group, origin, url, endpoint, own)
  if not to then
    end_unsent(id, account, at, reason)
    ended[#ended + 1] = { id, account, origin, code, at, reason }
  elseif to ~= url then
    redis.call('HSET', RECORD .. id, 'url', to, 'endpoint', at)
  end
  return to and at, to
end

-- How long a postback could have been sent whose first POST begins: since it was accepted, or since the time that its
-- record says instead. What waits for its receiver, or for its account's own rate, tells nothing of us.
local function waited_ms(number, pace, created_ms, ready_ms)
  if number > 1 or pace.behind or pace.failing then return -1 end
  return math.max(0, now - (ready_ms or created_ms))
end

-- what waits in a lane now may have waited for others than us, until the lane has been emptied
local function fall_behind(lane, pace)
  if pace.behind then return end
  pace.behind = true
  redis.call('HSET', PACE .. lane, 'behind', 1)
  if pace.claimed == 0 then redis.call('EXPIRE', PACE .. lane, 86400) end
end

-- What was cancelled deep in a lane comes up, often more of it: all that stands in front goes at once.
local passed = false
local function pass_by(id, lane)
  passed = true
  pass_over(id, lane)
  return 0
end
local function pass_all(lane, most)
  local count = 0
  for _, id in ipairs(redis.call('LRANGE', LANE .. lane, 0, most - 1)) do
    if redis.call('HGET', RECORD .. id, 'state') == 'waiting' then break end
    pass_by(id, lane)
    count = count + 1
  end
  if count > 0 then redis.call('LTRIM', LANE .. lane, count, -1) end
  passed = false
  return count
end

local function begin(id, lane, pace, route, group)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'state', 'attempts', 'failures', 'account', 'origin', 'code',
    'created_ms', 'sequence', 'url', 'xml', 'endpoint', 'own', 'ready_ms')
  if r[1] ~= 'waiting' then return pass_by(id, lane) end
  local endpoint, url = aim(id, r[4], r[5], r[6], route, group, r[9], r[11], r[12])
  if not endpoint then return 0 end
  local room, slow = has_room(endpoint, endpoint_max, endpoint_max > 0 and reserved_for(endpoint))
  if not room then return nil, endpoint, slow end
  enter(endpoint, endpoint_max)
  local number = r[2] + 1
  redis.call('HSET', record, 'state', 'sending', 'attempts', number, 'sent_ms', now)
  entered[#entered + 1] = id
  entered[#entered + 1] = 1
  bytes = bytes + #r[10]
  begun[#begun + 1] = { id, lane, pace.new and 2 or pace.suspect and 1 or 0, number, r[3], r[4], r[5], r[6], r[7], r[8],
    url, r[10], route and route.version or '', r[12] or '', waited_ms(number, pace, r[7], r[13]) }
  return 1
end

local function hold(id, lane, route, group)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'state', 'endpoint', 'attempts', 'failures', 'account', 'origin', 'code',
    'url', 'own')
  if r[1] ~= 'waiting' then return pass_by(id, lane) end
  local endpoint = aim(id, r[5], r[6], r[7], route, group, r[8], r[2], r[9])
  if not endpoint then return 0 end
  redis.call('HSET', record, 'state', 'sending')
  entered[#entered + 1] = id
  entered[#entered + 1] = 0
  held[#held + 1] = { id, lane, endpoint, r[3], r[4], r[5], r[6], r[7] }
  return 1
end

-- The suspect whose turn it is, and its score. Of the new ones the latest: where many come at once and hang, one that
-- comes later does not wait behind them.
local new_begun, troubled_begun = 0, 0
local function next_suspect()
  if new_begun < new_max then
    local latest = redis.call('ZRANGE', READY_SUSPECT, 0, 0, 'WITHSCORES')
    local score = tonumber(latest[2] or 0)
    if score < 0 and (new_begun < waited_max or now + score <= WAITED_MS) then
      redis.call('ZREM', READY_SUSPECT, latest[1])
      return latest
    end
  end
  local head = new_begun + troubled_begun < troubled_max
    and redis.call('ZRANGEBYSCORE', READY_SUSPECT, 0, '+inf', 'WITHSCORES', 'LIMIT', 0, 1) or {}
  if head[1] then redis.call('ZREM', READY_SUSPECT, head[1]) end
  return head
end

-- what was taken from a lane and has no room goes back to its front, from this one on
local function put_back(lane, ids, from)
  for back = #ids, from, -1 do redis.call('LPUSH', LANE .. lane, ids[back]) end
end

local function serve(ring, name, room, bytes_max)
  local set_aside, turn = {}, nil -- lanes that have no room of their own just now: seen once a call
  local last, looked = 0, 0
  -- a lane's share of a turn: with more, the turns of a thousand lanes would each open connections and close others'
  local share = math.max(1, math.floor(free / math.max(1, redis.call('ZCARD', ring))))
  while room > 0 do
    if looked >= LOOKED_MAX or bytes >= bytes_max then
      cut = true
      break
    end
    looked = looked + 1
    local head = ring == READY_SUSPECT and next_suspect() or redis.call('ZPOPMIN', ring)
    if #head == 0 then break end
    local lane, score, before = head[1], tonumber(head[2]), #begun
    last = math.max(last, score)
    local tag = score
    if score < 0 then tag = math.max(0, tonumber(redis.call('HGET', TURNS, name) or 0)) end -- a new lane's is no tag
    local waiting = redis.call('LLEN', LANE .. lane)
    local pace = pace_of(lane)
    if waiting > 0 and claimable(pace) then
      local account, group = string.match(lane, '^(.*)/([^/]+)$')
      local route = route_of(account)
      local gate, open, keep, need, stopped = gate_of(account), 1, 0, nil, false
      local base = LANE .. account
      local lanes = redis.call('EXISTS', base .. '/general', base .. '/mo', base .. '/mt', base .. '/pass')
      if lanes > 1 and weights[group] == 0 and (gate or not pace.failing) then need = urgent(account, group, may_begin) end
      if pace.failing then
        keep = math.min(waiting - 1, held_per_lane - 1, held_max - #held)
        if #held > 0 and #held + keep > HELD_MAX then
          redis.call('ZADD', ring, score, lane)
          cut = true
          break
        end
      else
        local limit = math.min(pace.limit, math.max(1, math.floor((free - #begun) / 64)))
        if need then limit = 1 end -- so that it neither delays the urgent nor starves
        open = math.min(waiting, limit - pace.claimed, room, share)
      end
      if route and route.still then
        open, stopped = 0, true
        if stands_still(route, lane) then still[#still + 1] = account end
        fall_behind(lane, pace)
      elseif gate and open > 0 then
        local wanted = open
        open = let_through(gate, lane, open, need or 0)
        stopped = open == 0
        if open < wanted then fall_behind(lane, pace) end
      end
      local cost = cost_of(account, group, gate, lanes)
      local taken, popped = 0, math.max(0, open)
      if open > 0 then
        local ids = redis.call('LPOP', LANE .. lane, open)
        for at, id in ipairs(ids) do
          local count, full, slow = begin(id, lane, pace, route, group)
          if full then
            put_back(lane, ids, at)
            popped = at - 1
            -- where an endpoint starts slowly, behind the one that is tried there, which may stand for them
            keep = slow and math.min(keep + #ids - popped, held_max - #held) or 0
            room = room - 1 -- so that a call ends
            if keep == 0 then
              wait_for_room(lane, full)
              stopped = true
            end
            break
          end
          taken, room = taken + count, room - 1 -- what has ended counts as well: so a call ends
          if bytes >= bytes_max and at < #ids then
            put_back(lane, ids, at + 1)
            popped, keep = at, 0
            break
          end
        end
        if gate then pass(gate, taken) end
        if keep > 0 then
          fall_behind(lane, pace)
          local before = #held
          for _, id in ipairs(redis.call('LPOP', LANE .. lane, keep)) do taken = taken + hold(id, lane, route, group) end
          redis.call('HSET', PACE .. lane, 'held', pace.held + #held - before)
        end
        if passed then
          local count = pass_all(lane, LOOKED_MAX)
          waiting, looked = waiting - count, looked + count
        end
        if taken > 0 or not stopped then
          -- what counts claims is not forgotten while there are any
          if pace.claimed == 0 then redis.call('PERSIST', PACE .. lane) end
          pace.claimed, turn = pace.claimed + taken, score < 0 and turn or tag
          redis.call('HSET', PACE .. lane, 'claimed', pace.claimed, 'tag', tag + math.max(1, taken) * cost)
        end
      end
      if pace.behind and not pace.failing and not stopped and waiting <= popped and pace.held == 0 then
        redis.call('HDEL', PACE .. lane, 'behind')
      end
      if stopped then
        -- it comes back by itself
      elseif open <= 0 then
        set_aside[#set_aside + 1] = { score, lane }
      elseif waiting > popped + keep and claimable(pace) then
        redis.call('ZADD', ring, score < 0 and score or tag + math.max(1, taken) * cost, lane)
      end
      if score < 0 then
        new_begun = new_begun + #begun - before
      elseif ring == READY_SUSPECT then
        troubled_begun = troubled_begun + #begun - before
      end
    end
  end
  if turn then redis.call('HSET', TURNS, name, turn) end
  for _, entry in ipairs(set_aside) do
    -- where not all were looked at, the next call is to come to the others
    redis.call('ZADD', ring, cut and entry[1] >= 0 and last + 1 or entry[1], entry[2])
  end
end

-- suspects first, but at most a quarter of the call: a new account is a suspect and must not wait
-- behind everybody's backlog
serve(READY_SUSPECT, 'suspect', math.min(suspects_max, math.ceil(at_most / 4)), BYTES_MAX / 4)
serve(READY_TRUSTED, 'trusted', at_most - #begun, BYTES_MAX)
serve(READY_SUSPECT, 'suspect', math.min(suspects_max - new_begun - troubled_begun, at_most - #begun), BYTES_MAX)
call_many('HSET', claims, entered)

local function first_of(index, soonest_ms)
  local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  return first[1] and math.max(soonest_ms, tonumber(first[2]) - now) or math.huge
end
local again_ms = first_of(ASIDE, 0)
if redis.call('ZCARD', CLAIMERS) <= DUE_LOOKERS then again_ms = math.min(again_ms, first_of(PARKED, DUE_LOOK_MS)) end
if cut then again_ms = 0 end
return { now, begun, held, again_ms < math.huge and again_ms or -1, ended, still }
