-- What every script here begins with; scripts.py puts it in front of each.
--
-- KEYS READY_TRUSTED, READY_SUSPECT, TURNS, PARKED, QUARANTINE, BACKLOG, DONE, DEAD, DEAD_BYTES, OPEN, RECORD, LANE
-- KEYS PACE, DEAD_OF, STUBS_OF
-- ARGV[1], the same for all: milliseconds added to the broker's clock; 0 outside tests.
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000) + tonumber(ARGV[1])

local GROUPS = { 'general', 'mo', 'mt', 'pass' }

-- scores of the quarantine: tried with a few others, those of lanes that answer first; then alone
local FEW, FEW_SLOW, ALONE = 0, 1, 2

local function account_of(lane)
  return string.match(lane, '^(.*)/[^/]+$')
end

-- pace of a lane: how many ids are in claims, how many transfers it may have open, whether its last
-- outcome was a failure, whether it shares the suspects' half, the virtual time of its turn, how
-- many of its claimed ids are only held, and whether what waits there may have waited for its receiver.
-- A lane nobody knows yet is new: it starts with one transfer, as a suspect.
local function pace_of(lane)
  local f = redis.call('HMGET', PACE .. lane, 'claimed', 'limit', 'failing', 'suspect', 'tag', 'held', 'behind')
  return {
    claimed = tonumber(f[1] or 0), limit = tonumber(f[2] or 1), failing = f[3] == '1',
    suspect = f[4] ~= '0', new = not f[4] and f[3] ~= '1', tag = tonumber(f[5] or 0), held = tonumber(f[6] or 0),
    behind = f[7] == '1',
  }
end

-- a failing lane is claimed from only while nobody holds any of it: one of it is tried at a time
local function claimable(pace)
  if pace.failing then return pace.claimed == 0 end
  return pace.claimed < pace.limit
end

-- puts a lane into its ring if there is something to claim; one that was idle joins at the ring's
-- present time: neither punished for its past nor credited for its silence. A new one stands before all of its ring,
-- by the time at which it came: the latest has the lowest score. A script that asks for many lanes hands over what it
-- knows already.
local function make_ready(lane, known_pace, known_turns)
  if redis.call('EXISTS', LANE .. lane) == 0 then return end
  local pace = known_pace or pace_of(lane)
  if not claimable(pace) then return end
  if pace.new then return redis.call('ZADD', READY_SUSPECT, 'NX', -now, lane) end
  local ring = pace.suspect and READY_SUSPECT or READY_TRUSTED
  local turns = known_turns or redis.call('HMGET', TURNS, 'trusted', 'suspect')
  local turn = tonumber(turns[pace.suspect and 2 or 1] or 0)
  redis.call('ZADD', ring, 'NX', math.max(0, pace.tag, turn), lane) -- 0.1.0 writes a new lane's score as a tag
end

-- one command for many arguments: each call from a script costs the broker more than an argument does
local function call_many(command, key, arguments)
  for first = 1, #arguments, 1000 do -- Lua's stack has room for 8,000; even, so that pairs stay together
    redis.call(command, key, unpack(arguments, first, math.min(first + 999, #arguments)))
  end
end

-- ids have left the claims, one where no count is given
local function unclaim(lane, held, count)
  count = count or 1
  local claimed = redis.call('HINCRBY', PACE .. lane, 'claimed', -count)
  if claimed <= 0 then redis.call('EXPIRE', PACE .. lane, 86400) end -- as `commit` does; nothing more may come of the lane
  if held and redis.call('HINCRBY', PACE .. lane, 'held', -count) < 0 then
    redis.call('HSET', PACE .. lane, 'held', 0)
  end
end

-- what a record counts against its account's limit
local UNIT_BYTES = 2048
local function units_in(bytes)
  return math.max(1, math.ceil(bytes / UNIT_BYTES))
end

-- Postbacks of a lane are neither delivered nor given up any more: its account's count, and the units of its group. With
-- an account's last one its groups are at nothing, whatever a worker of version 0.1.0 has left uncounted.
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

-- a postback is among its account's dead, a stub apart from those that have their document
local function enter_dead(account, id, bytes, stub)
  redis.call('ZADD', (stub and STUBS_OF or DEAD_OF) .. account, now, id)
  redis.call('ZADD', DEAD_BYTES, 'INCR', bytes, account)
end

-- it leaves them: sent again, or forgotten
local function leave_dead(account, id, bytes)
  if redis.call('ZREM', DEAD_OF .. account, id) + redis.call('ZREM', STUBS_OF .. account, id) == 0 then return end
  if redis.call('EXISTS', DEAD_OF .. account, STUBS_OF .. account) == 0 then
    redis.call('ZREM', DEAD_BYTES, account)
  else
    redis.call('ZADD', DEAD_BYTES, 'INCR', -bytes, account)
  end
end

-- a postback comes to an end: index is DONE or DEAD
local function finish(id, account, state, reason, index)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'group', 'units', 'bytes')
  redis.call('HSET', record, 'state', state, 'reason', reason, 'ended_ms', now)
  redis.call('HDEL', record, 'next_ms', 'suspicion', 'alone_deaths', 'alone_lapses')
  redis.call('ZADD', index, now, id)
  leave_backlog(account .. '/' .. r[1], 1, tonumber(r[2] or 1))
  if index == DEAD then enter_dead(account, id, tonumber(r[3] or 0)) end
end

-- An id has come up in its lane whose postback does not wait: it was cancelled deep inside, and ends now.
local function pass_over(id, lane)
  if redis.call('HDEL', RECORD .. id, 'in_lane') == 1 then
    redis.call('ZADD', DONE, now, id)
    leave_backlog(lane, 1, tonumber(redis.call('HGET', RECORD .. id, 'units') or 1))
  end
end

-- ids go to the ends of their lanes
local function append(lanes)
  local turns = redis.call('HMGET', TURNS, 'trusted', 'suspect')
  for lane, ids in pairs(lanes) do
    call_many('RPUSH', LANE .. lane, ids)
    make_ready(lane, nil, turns)
  end
end

-- Parked postbacks whose countdown has ended go to the end of their lanes; one whose process died while it was
-- sent alone goes back to the quarantine. Returns how many, `at_most` if there may be more.
local function release_due(at_most)
  local due = redis.call('ZRANGEBYSCORE', PARKED, '-inf', now, 'LIMIT', 0, at_most)
  if #due == 0 then return 0 end
  call_many('ZREM', PARKED, due)
  local lanes = {}
  for _, id in ipairs(due) do
    local owner = redis.call('HMGET', RECORD .. id, 'account', 'group', 'suspicion')
    if owner[1] then
      local lane = owner[1] .. '/' .. owner[2]
      redis.call('HSET', RECORD .. id, 'state', 'waiting')
      redis.call('HDEL', RECORD .. id, 'next_ms')
      if owner[3] then
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
