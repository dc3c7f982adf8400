-- _shared: what every script begins with: the broker's clock, lanes and their ready sets, backlogs, and ends of postbacks.
--
-- KEYS READY_TRUSTED, READY_SUSPECT, RING_CLOCK, PARKED, QUARANTINE, BACKLOG, DONE, DEAD, DEAD_BYTES, OPEN, RECORD, LANE
-- KEYS LANE_STATE, DEAD_OF, STUBS_OF
-- ARGV[1], the same for all scripts: ms added to the broker's clock; 0 outside tests.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1])

-- Ids of postbacks that this script has accepted, parked, ended, resent or dropped, for the history (`_changes.lua`).
local changed = {}

local GROUPS = { 'general', 'mo', 'mt', 'pass' }

-- Scores of the quarantine. A postback is tried with a few others, those of lanes that answer first, and then alone.
local FEW, FEW_SLOW, ALONE = 0, 1, 2

local function account_of(lane)
  return string.match(lane, '^(.*)/[^/]+$')
end

-- The state of a lane: {claimed: ids in claims, limit: POSTs that it may have open, failing: its last POST failed, suspect:
-- it belongs to the ready set of the suspects, new: nobody has sent for it lately, virtual_time: of its next turn, held: of
-- its claimed ids those without a POST, behind: what waits there may have waited for others than us}.
-- A lane that nobody knows is new: a suspect that begins with one POST.
local function lane_state_of(lane)
  local f = redis.call('HMGET', LANE_STATE .. lane, 'claimed', 'limit', 'failing', 'suspect', 'tag', 'held', 'behind')
  return {
    claimed = tonumber(f[1] or 0), limit = tonumber(f[2] or 1), failing = f[3] == '1',
    suspect = f[4] ~= '0', new = not f[4] and f[3] ~= '1', virtual_time = tonumber(f[5] or 0),
    held = tonumber(f[6] or 0), behind = f[7] == '1',
  }
end

-- A failing lane is claimed from only while nobody holds any of it: one postback of it is tried at a time.
local function is_claimable(lane_state)
  if lane_state.failing then return lane_state.claimed == 0 end
  return lane_state.claimed < lane_state.limit
end

-- Puts a lane into its ready set if there is something to claim. A lane that was idle joins at the set's present virtual
-- time, neither punished for its past nor credited for its silence. A new one stands before all others of its set, the
-- latest first: its score is its time of arrival, negative. A script that asks for many lanes hands over what it has read.
local function make_ready(lane, known_state, known_clocks)
  if redis.call('EXISTS', LANE .. lane) == 0 then return end
  local lane_state = known_state or lane_state_of(lane)
  if not is_claimable(lane_state) then return end
  if lane_state.new then return redis.call('ZADD', READY_SUSPECT, 'NX', -now, lane) end
  local ready_set = lane_state.suspect and READY_SUSPECT or READY_TRUSTED
  local clocks = known_clocks or redis.call('HMGET', RING_CLOCK, 'trusted', 'suspect')
  local present = tonumber(clocks[lane_state.suspect and 2 or 1] or 0)
  -- never below 0: a worker of version 0.1.0 writes the score of a new lane as its virtual time
  redis.call('ZADD', ready_set, 'NX', math.max(0, lane_state.virtual_time, present), lane)
end

-- Runs one command for many arguments: each call from a script costs the broker more than an argument does.
local function call_many(command, key, arguments)
  for first = 1, #arguments, 1000 do -- Lua's stack has room for 8,000; even, so that pairs stay together
    redis.call(command, key, unpack(arguments, first, math.min(first + 999, #arguments)))
  end
end

-- Counts ids that have left the claims: `count` of them, by default one.
local function unclaim(lane, held, count)
  count = count or 1
  local claimed = redis.call('HINCRBY', LANE_STATE .. lane, 'claimed', -count)
  if claimed <= 0 then redis.call('EXPIRE', LANE_STATE .. lane, 86400) end -- as `commit` does; this may be the lane's last
  if held and redis.call('HINCRBY', LANE_STATE .. lane, 'held', -count) < 0 then
    redis.call('HSET', LANE_STATE .. lane, 'held', 0)
  end
end

-- Units of a record against its account's limit.
local UNIT_BYTES = 2048
local function units_in(bytes)
  return math.max(1, math.ceil(bytes / UNIT_BYTES))
end

-- Takes postbacks of a lane that have ended from their account's backlog, and their units from their group's. With an
-- account's last postback its groups are at nothing, whatever a worker of version 0.1.0 has left uncounted.
local function leave_backlog(lane, count, units)
  local account = account_of(lane)
  if redis.call('HINCRBY', BACKLOG, account, -count) <= 0 then
    redis.call('HDEL', BACKLOG, account)
    local lanes = {}
    for i, group in ipairs(GROUPS) do lanes[i] = account .. '/' .. group end
    redis.call('HDEL', OPEN, unpack(lanes))
  elseif redis.call('HINCRBY', OPEN, lane, -units) <= 0 then
    redis.call('HDEL', OPEN, lane)
  end
end

-- Added to the score of an opt-out where postbacks are dropped for want of memory, the lowest score first: so it goes last. More
-- than any time, and few enough for a sum that is exact.
local OPT_OUTS_FROM = 1e14

-- Adds a postback to its account's dead. Stubs stand apart from those that have their document.
local function add_to_dead(account, id, bytes, stub)
  local last = redis.call('HEXISTS', RECORD .. id, 'opt_out') * OPT_OUTS_FROM
  redis.call('ZADD', (stub and STUBS_OF or DEAD_OF) .. account, now + last, id)
  redis.call('ZADD', DEAD_BYTES, 'INCR', bytes, account)
end

-- Takes a postback that is sent again or forgotten from its account's dead.
local function remove_from_dead(account, id, bytes)
  if redis.call('ZREM', DEAD_OF .. account, id) + redis.call('ZREM', STUBS_OF .. account, id) == 0 then return end
  if redis.call('EXISTS', DEAD_OF .. account, STUBS_OF .. account) == 0 then
    redis.call('ZREM', DEAD_BYTES, account)
  else
    redis.call('ZADD', DEAD_BYTES, 'INCR', -bytes, account)
  end
end

-- Ends a postback; `index` is DONE or DEAD.
local function finish(id, account, state, reason, index)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'group', 'units', 'bytes', 'next_ms', 'suspicion')
  redis.call('HSET', record, 'state', state, 'reason', reason, 'ended_ms', now)
  if r[4] then redis.call('HDEL', record, 'next_ms') end
  if r[5] then redis.call('HDEL', record, 'suspicion', 'alone_deaths', 'alone_lapses') end
  redis.call('ZADD', index, now, id)
  leave_backlog(account .. '/' .. r[1], 1, tonumber(r[2] or 1))
  if index == DEAD then add_to_dead(account, id, tonumber(r[3] or 0)) end
  changed[#changed + 1] = id
end

-- Ends an id that has come up in its lane though its postback does not wait: it was cancelled deep inside the lane.
local function end_cancelled(id, lane)
  if redis.call('HDEL', RECORD .. id, 'in_lane') == 1 then
    redis.call('ZADD', DONE, now, id)
    leave_backlog(lane, 1, tonumber(redis.call('HGET', RECORD .. id, 'units') or 1))
  end
end

-- Puts ids at the ends of their lanes.
local function append(lanes)
  local clocks = redis.call('HMGET', RING_CLOCK, 'trusted', 'suspect')
  for lane, ids in pairs(lanes) do
    call_many('RPUSH', LANE .. lane, ids)
    make_ready(lane, nil, clocks)
  end
end

-- Puts parked postbacks whose countdown has ended at the ends of their lanes, or back into the quarantine if their process
-- died while they were sent alone. Returns how many; `at_most` if there may be more.
local function release_due(at_most)
  local due = redis.call('ZRANGEBYSCORE', PARKED, '-inf', now, 'LIMIT', 0, at_most)
  if #due == 0 then return 0 end
  call_many('ZREM', PARKED, due)
  local lanes = {}
  for _, id in ipairs(due) do
    local r = redis.call('HMGET', RECORD .. id, 'account', 'group', 'suspicion')
    if r[1] then
      local lane, quarantine_level = r[1] .. '/' .. r[2], r[3]
      redis.call('HSET', RECORD .. id, 'state', 'waiting')
      redis.call('HDEL', RECORD .. id, 'next_ms')
      if quarantine_level then
        redis.call('ZADD', QUARANTINE, ALONE, id)
      else
        local ids = lanes[lane] or {}
        ids[#ids + 1], lanes[lane] = id, ids
      end
    end
  end
  append(lanes)
  return #due
end
