-- claim: a delivering loop takes postbacks from the lanes that are ready, each lane in its turn, under the loop's lease.
-- A lane has at most its limit of POSTs open over all workers. A failing lane has one, the probe, and may have more ids held
-- behind it, which a shared connect time-out settles at once. Suspects (new, slow and failing lanes) share the room that the
-- caller leaves for them, the new ones first. Room is kept for everybody: a lane may have no more POSTs than a 64th of the
-- transfers that are free (the dynamic threshold of shared-memory switches, Choudhury and Hahne 1998).
--
-- KEYS READY_TRUSTED, READY_SUSPECT, RING_CLOCK, PARKED, DELAYED, CLAIMERS, RECORD, LANE, LANE_STATE, CLAIMS, WAITING_FOR_ROOM
-- ARGV[2] token   ARGV[3] lease, ms   ARGV[4] POSTs to begin at most
-- ARGV[5] of them for suspects at most   ARGV[6] transfers that the caller has free
-- ARGV[7] ids held at most   ARGV[8] ids held a failing lane at most
-- ARGV[9] POSTs that an endpoint may have open, 0 for any number   ARGV[10] weights of groups: 'general=1 mt=0'
-- ARGV[11] POSTs of suspects up to which slow and failing lanes begin any   ARGV[12] POSTs of new lanes at most
-- ARGV[13] POSTs of new lanes up to which those begin any that have waited for more than a second
-- ARGV[14..] lanes that have become slow since the last call
-- Returns {now, begun, held, again_ms, ended, still}:
--   begun: a ClaimRow each (rows.py), {id, lane, standing, number, failures, account, origin, code, created_ms, sequence, url,
--     xml, version, own, waited_ms}
--   held: a HeldRow each, {id, lane, endpoint, attempts, failures, account, origin, code}
--   again_ms: until the first lane that waits for its rate or for room may go on, or, where few loops claim, the first parked
--     postback is due, whichever is first; 0 where the call stopped short, -1 where nothing waits
--   ended: an EndedRow each, {id, account, origin, code, state, reason}, of what its account wants no more or has no URL for
--   still: accounts whose lanes were delayed as they stand still, to be looked up
-- Atomic: an id is in its lane or in the claims.
local token, lease_ms, at_most, suspects_max = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local free, held_max, held_per_lane = tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local endpoint_max = tonumber(ARGV[9])
local troubled_max, new_max, waited_max = tonumber(ARGV[11]), tonumber(ARGV[12]), tonumber(ARGV[13])
local WAITED_MS = 1000
local DUE_MAX = 500 -- parked ones released a call, so that it does not hold the broker up
local DUE_LOOK_MS = 50 -- what is due soon makes no loop look more often than it does anyway (session.POLL_EVERY_S)
local DUE_LOOKERS = 2 -- loops that stay for what is due soon; if one hangs there is another
local REQUEUED_MAX = 200 -- delayed lanes that take turns again in one call
-- What one call looks at, so that no number of lanes makes it long; where it stops short of them again_ms is 0.
local VISITED_MAX, HELD_MAX, BYTES_MAX = 250, 1000, 4000000 -- lanes of a ready set; ids; bytes of documents
local bytes, cut_short = 0, false
local claims = CLAIMS .. token
local begun, held, claimed_as, ended, still = {}, {}, {}, {}, {}

read_weights(ARGV[10])
redis.call('ZADD', CLAIMERS, now + lease_ms, token)

for i = 14, #ARGV do
  local lane = ARGV[i]
  if redis.call('HGET', LANE_STATE .. lane, 'suspect') == '0' then
    redis.call('HSET', LANE_STATE .. lane, 'suspect', 1, 'tag', 0, 'behind', 1)
    if redis.call('ZREM', READY_TRUSTED, lane) == 1 then make_ready(lane) end
  end
end

-- What is due now leaves now, not at the next tick.
release_due(DUE_MAX)

-- Lets lanes that have waited for their rate or for room take turns again: those whose time has come.
local requeues_left = REQUEUED_MAX
local function requeue_delayed(from, to)
  for _, name in ipairs(redis.call('ZRANGEBYSCORE', DELAYED, from, to, 'LIMIT', 0, REQUEUED_MAX)) do
    if requeues_left <= 0 then break end
    requeues_left = requeues_left - 1
    redis.call('ZREM', DELAYED, name)
    if string.match(name, '^[^/]+/[^/]+$') then -- a lane; else an account or an endpoint at which lanes wait
      make_ready(name)
    else
      local is_free, slow = has_room(name, endpoint_max)
      local room = slow and 50 or is_free and 10 or 0 -- where an endpoint starts slowly they are held
      local gate = not string.find(name, '://', 1, true) and gate_of(name)
      if gate and gate.open then room = gate.most - gate.open end
      if room > 0 then requeues_left = requeues_left - requeue_waiting(name, math.min(room, requeues_left + 1)) end
      if redis.call('EXISTS', WAITING_FOR_ROOM .. name) == 1 then redis.call('ZADD', DELAYED, now + LOOK_AGAIN_MS, name) end
    end
  end
end
if redis.call('EXISTS', DELAYED) == 1 then
  requeue_delayed('-inf', now)
  requeue_delayed('(' .. now + DELAY_MAX_MS, '+inf')
end

-- -- one postback -----------------------------------------------------------------------------------

-- Returns endpoint and URL that a postback goes to now, with which its record follows its account; nil where it ended instead.
local function aim(id, account, origin, code, route, group, url, endpoint, own)
  local target, where, reason = target_of(route, group, origin, url, endpoint, own)
  if not target then
    end_unsent(id, account, where, reason)
    ended[#ended + 1] = { id, account, origin, code, where, reason }
  elseif target ~= url then
    redis.call('HSET', RECORD .. id, 'url', target, 'endpoint', where)
  end
  return target and where, target
end

-- Returns how long a postback could have been sent whose first POST begins: since it was accepted, or since the time that its
-- record says instead. What waits for its receiver, or for its account's own rate, says nothing of us: -1.
local function waited_ms(number, lane_state, created_ms, ready_ms)
  if number > 1 or lane_state.behind or lane_state.failing then return -1 end
  return math.max(0, now - (ready_ms or created_ms))
end

-- An id that does not wait was cancelled deep in its lane. Often more of them follow: those in front go at once afterwards.
local met_cancelled = false
local function skip_cancelled(id, lane)
  met_cancelled = true
  end_cancelled(id, lane)
  return 0
end

local function end_cancelled_in_front(lane, most)
  local count = 0
  for _, id in ipairs(redis.call('LRANGE', LANE .. lane, 0, most - 1)) do
    if redis.call('HGET', RECORD .. id, 'state') == 'waiting' then break end
    skip_cancelled(id, lane)
    count = count + 1
  end
  if count > 0 then redis.call('LTRIM', LANE .. lane, count, -1) end
  met_cancelled = false
  return count
end

-- Begins the POST of an id. Returns 1, 0 where it ended instead, or nil with the endpoint that has no room and whether its slow
-- start is why.
local function begin(id, lane, lane_state, route, group)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'state', 'attempts', 'failures', 'account', 'origin', 'code',
    'created_ms', 'sequence', 'url', 'xml', 'endpoint', 'own', 'ready_ms')
  if r[1] ~= 'waiting' then return skip_cancelled(id, lane) end
  local endpoint, url = aim(id, r[4], r[5], r[6], route, group, r[9], r[11], r[12])
  if not endpoint then return 0 end
  local is_free, slow = has_room(endpoint, endpoint_max, endpoint_max > 0 and quarantine_reserve(endpoint))
  if not is_free then return nil, endpoint, slow end
  count_open(endpoint, endpoint_max)
  local number = r[2] + 1
  redis.call('HSET', record, 'state', 'sending', 'attempts', number, 'sent_ms', now)
  claimed_as[#claimed_as + 1] = id
  claimed_as[#claimed_as + 1] = 1
  bytes = bytes + #r[10]
  local standing = lane_state.new and 2 or lane_state.suspect and 1 or 0
  begun[#begun + 1] = { id, lane, standing, number, r[3], r[4], r[5], r[6], r[7], r[8],
    url, r[10], route and route.version or '', r[12] or '', waited_ms(number, lane_state, r[7], r[13]) }
  return 1
end

-- Holds an id behind the probe of its lane. Returns 1, or 0 where it ended instead.
local function hold(id, lane, route, group)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'state', 'endpoint', 'attempts', 'failures', 'account', 'origin', 'code',
    'url', 'own')
  if r[1] ~= 'waiting' then return skip_cancelled(id, lane) end
  local endpoint = aim(id, r[5], r[6], r[7], route, group, r[8], r[2], r[9])
  if not endpoint then return 0 end
  redis.call('HSET', record, 'state', 'sending')
  claimed_as[#claimed_as + 1] = id
  claimed_as[#claimed_as + 1] = 0
  held[#held + 1] = { id, lane, endpoint, r[3], r[4], r[5], r[6], r[7] }
  return 1
end

-- -- one lane: the phases of its turn ---------------------------------------------------------------

-- Says that what waits in a lane now may have waited for others than us, until the lane has been emptied.
local function fall_behind(lane, lane_state)
  if lane_state.behind then return end
  lane_state.behind = true
  redis.call('HSET', LANE_STATE .. lane, 'behind', 1)
  if lane_state.claimed == 0 then redis.call('EXPIRE', LANE_STATE .. lane, 86400) end
end

-- Whether POSTs of lanes like this one may begin at all in this call.
local function may_begin(lane_state)
  return not lane_state.suspect or suspects_max > 0 and (lane_state.new and new_max or troubled_max) > 0
end

-- Phase 1: how many POSTs may begin by the lane's limit and by the transfers that are free. Where postbacks of higher priority
-- wait it is one, so that the lane neither delays them nor starves.
local function posts_by_lane(lane_state, waiting, demand, pass)
  if lane_state.failing then return 1 end
  local limit = math.min(lane_state.limit, math.max(1, math.floor((free - #begun) / 64)))
  if demand then limit = 1 end
  return math.min(waiting, limit - lane_state.claimed, pass.room, pass.share)
end

-- Phase 2: how many of these the account lets begin; and whether the lane was delayed, or waits for room, as none may. What
-- lanes of higher priority need is left to them.
local function posts_by_account(lane, lane_state, gate, count, demand)
  if not gate or count <= 0 then return count, false end
  local by_rate, by_open = posts_allowed(gate, 0)
  if gate.open then by_open = by_open - quarantine_reserve(gate.account) end
  local allowed = 0
  if by_rate - demand < 1 then
    local at_ms = math.ceil((gate.next_us + demand * gate.interval_us - BURST_US) / 1000)
    redis.call('ZADD', DELAYED, math.min(at_ms, now + DELAY_MAX_MS), lane)
  else
    if by_open - demand < 1 then wait_for_room(lane, gate.account) end
    allowed = math.max(0, math.min(count, by_rate - demand, by_open - demand))
  end
  if allowed < count then fall_behind(lane, lane_state) end
  return allowed, allowed == 0
end

-- Puts ids that were taken from a lane back to its front, from the given one on.
local function put_back(lane, ids, from)
  for i = #ids, from, -1 do redis.call('LPUSH', LANE .. lane, ids[i]) end
end

-- Phase 3: takes ids from the front of the lane and begins their POSTs, until an endpoint has no room or the documents are too
-- many bytes; then the rest goes back. Returns how many began, how many ids left the lane, how many of `to_hold` are to be
-- held, how many ids were tried (each takes room, ended ones too, so that a call ends), and the endpoint that had no room.
local function take_and_begin(lane, lane_state, route, group, count, to_hold, bytes_max)
  local ids, began = redis.call('LPOP', LANE .. lane, count), 0
  for at, id in ipairs(ids) do
    local begins, full_endpoint, slow = begin(id, lane, lane_state, route, group)
    if full_endpoint then
      put_back(lane, ids, at)
      -- where an endpoint starts slowly they are held behind the POST that is open there, which may stand for them
      to_hold = slow and math.min(to_hold + #ids - at + 1, held_max - #held) or 0
      return began, at - 1, to_hold, at, full_endpoint
    end
    began = began + begins
    if bytes >= bytes_max and at < #ids then
      put_back(lane, ids, at + 1)
      return began, at, 0, at
    end
  end
  return began, #ids, to_hold, #ids
end

-- Phase 4: holds the next ids of the lane behind its probe. Returns how many.
local function hold_behind_probe(lane, lane_state, route, group, count)
  fall_behind(lane, lane_state)
  local before, holds = #held, 0
  for _, id in ipairs(redis.call('LPOP', LANE .. lane, count)) do holds = holds + hold(id, lane, route, group) end
  redis.call('HSET', LANE_STATE .. lane, 'held', lane_state.held + #held - before)
  return holds
end

-- Gives a lane its turn: the phases above, then the lane takes its next turn in the same ready set if more may be claimed. A lane
-- that none may begin of just now is looked at again after this call.
local function take_turn(pass, lane, score, virtual_time, waiting, lane_state, to_hold)
  local account, group = string.match(lane, '^(.*)/([^/]+)$')
  local route = route_of(account)
  if route and (route.still or route.paused) then
    -- the lane of a paused account is in nobody's way until it is resumed
    if not route.paused and stands_still(route, lane) then still[#still + 1] = account end
    return fall_behind(lane, lane_state)
  end
  local gate, demand = gate_of(account), nil
  local prefix = LANE .. account
  local lanes = redis.call('EXISTS', prefix .. '/general', prefix .. '/mo', prefix .. '/mt', prefix .. '/pass')
  if lanes > 1 and weights[group] == 0 and (gate or not lane_state.failing) then
    demand = higher_priority_demand(account, group, may_begin)
  end

  local count, comes_back = posts_by_lane(lane_state, waiting, demand, pass), false
  count, comes_back = posts_by_account(lane, lane_state, gate, count, demand or 0)
  if count <= 0 then
    if not comes_back then pass.skipped[#pass.skipped + 1] = { score, lane } end
    return
  end

  local cost = cost_of(account, group, gate, lanes)
  local taken, left, kept, tried, full_endpoint =
    take_and_begin(lane, lane_state, route, group, count, to_hold, pass.bytes_max)
  pass.room = pass.room - tried
  if gate then count_begun(gate, taken) end
  if full_endpoint and kept == 0 then
    wait_for_room(lane, full_endpoint)
    comes_back = true
  end
  if kept > 0 then taken = taken + hold_behind_probe(lane, lane_state, route, group, kept) end
  if met_cancelled then
    local cancelled = end_cancelled_in_front(lane, VISITED_MAX)
    waiting, pass.visited = waiting - cancelled, pass.visited + cancelled
  end

  local next_time = virtual_time + math.max(1, taken) * cost
  if taken > 0 or not comes_back then
    if lane_state.claimed == 0 then redis.call('PERSIST', LANE_STATE .. lane) end -- it counts claims: it must not expire
    lane_state.claimed = lane_state.claimed + taken
    if score >= 0 then pass.time = virtual_time end
    redis.call('HSET', LANE_STATE .. lane, 'claimed', lane_state.claimed, 'tag', next_time)
  end
  if comes_back then return end
  if lane_state.behind and not lane_state.failing and waiting <= left and lane_state.held == 0 then
    redis.call('HDEL', LANE_STATE .. lane, 'behind')
  end
  if waiting > left + kept and is_claimable(lane_state) then
    redis.call('ZADD', pass.ready_set, score < 0 and score or next_time, lane)
  end
end

-- -- one ready set ----------------------------------------------------------------------------------

-- Takes the suspect whose turn it is; returns it and its score. Of the new ones it is the latest: where many come at once and
-- hang, one that comes later does not wait behind them.
local new_begun, troubled_begun = 0, 0
local function pop_suspect()
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

-- Claims from the lanes of a ready set in turn until so many POSTs have begun (`room`), no lane is left or the call is long enough.
-- `ring` is the set's field in RING_CLOCK.
local function claim_from_ring(ready_set, ring, room, bytes_max)
  -- a lane's share of a pass: with more, the turns of a thousand lanes would each open connections and close others'
  local share = math.max(1, math.floor(free / math.max(1, redis.call('ZCARD', ready_set))))
  local pass = { ready_set = ready_set, room = room, share = share, bytes_max = bytes_max, visited = 0, skipped = {} }
  local last_score = 0
  while pass.room > 0 do
    if pass.visited >= VISITED_MAX or bytes >= bytes_max then
      cut_short = true
      break
    end
    pass.visited = pass.visited + 1
    local head = ready_set == READY_SUSPECT and pop_suspect() or redis.call('ZPOPMIN', ready_set)
    if #head == 0 then break end
    local lane, score, before = head[1], tonumber(head[2]), #begun
    last_score = math.max(last_score, score)
    local virtual_time = score
    if score < 0 then -- a new lane's score is its time of arrival
      virtual_time = math.max(0, tonumber(redis.call('HGET', RING_CLOCK, ring) or 0))
    end
    local waiting, lane_state = redis.call('LLEN', LANE .. lane), lane_state_of(lane)
    if waiting > 0 and is_claimable(lane_state) then
      local to_hold = 0
      if lane_state.failing then
        to_hold = math.min(waiting - 1, held_per_lane - 1, held_max - #held)
        if #held > 0 and #held + to_hold > HELD_MAX then
          redis.call('ZADD', ready_set, score, lane)
          cut_short = true
          break
        end
      end
      take_turn(pass, lane, score, virtual_time, waiting, lane_state, to_hold)
      if score < 0 then
        new_begun = new_begun + #begun - before
      elseif ready_set == READY_SUSPECT then
        troubled_begun = troubled_begun + #begun - before
      end
    end
  end
  if pass.time then redis.call('HSET', RING_CLOCK, ring, pass.time) end
  for _, entry in ipairs(pass.skipped) do
    -- where not all lanes were looked at, the next call is to come to the others
    redis.call('ZADD', ready_set, cut_short and entry[1] >= 0 and last_score + 1 or entry[1], entry[2])
  end
end

-- Suspects first, but at most a quarter of the call: a new account is a suspect and must not wait behind everybody's backlog.
claim_from_ring(READY_SUSPECT, 'suspect', math.min(suspects_max, math.ceil(at_most / 4)), BYTES_MAX / 4)
claim_from_ring(READY_TRUSTED, 'trusted', at_most - #begun, BYTES_MAX)
claim_from_ring(READY_SUSPECT, 'suspect', math.min(suspects_max - new_begun - troubled_begun, at_most - #begun), BYTES_MAX)
call_many('HSET', claims, claimed_as)

-- Returns the ms until the first entry of an index comes.
local function ms_until_first(index, soonest_ms)
  local first = redis.call('ZRANGE', index, 0, 0, 'WITHSCORES')
  return first[1] and math.max(soonest_ms, tonumber(first[2]) - now) or math.huge
end
local again_ms = ms_until_first(DELAYED, 0)
if redis.call('ZCARD', CLAIMERS) <= DUE_LOOKERS then
  again_ms = math.min(again_ms, ms_until_first(PARKED, DUE_LOOK_MS))
end
if cut_short then again_ms = 0 end
publish_changes()
return { now, begun, held, again_ms < math.huge and again_ms or -1, ended, still }
