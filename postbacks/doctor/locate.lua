-- locate: all places of postbacks, in one instant; and, where asked, moves each into the one place that its record
-- names. The record is the truth: every move writes it in the same step.
--
-- ARGV[2] mode (inspect | repair)   ARGV[3] ids in lanes, after a search of which no further postback is located
-- ARGV[4] number of tokens of delivering loops whose claims are searched besides those of CLAIMERS
-- ARGV[5..] the tokens, then two a postback: id, and lanes to search besides the one that its record names
--   (separated by newlines). To repair, the youngest first: the oldest ends up in front.
-- Returns a row a postback that was located, at least one, as it was before: {id, state ('' without a
--   record, ? where that has none), its lane, 1 if the ledger only remembers
--   that it was revoked, 2 if it was cancelled and ends when it comes up in its lane, sequence, places ('lane x',
--   'claims t', quarantine, parked, done, dead)}.
-- Atomic: all places of all the postbacks in one instant.
local mode, search_left, extra = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local tokens, is_token = redis.call('ZREVRANGE', CLAIMERS, 0, -1), {}
for _, token in ipairs(tokens) do is_token[token] = true end
for i = 5, 4 + extra do
  if not is_token[ARGV[i]] then tokens[#tokens + 1] = ARGV[i] end
end
local INDEX = { quarantine = QUARANTINE, parked = PARKED, done = DONE, dead = DEAD }
local KIND_OF_STATE = { waiting = 'lane', sending = 'claims', parked = 'parked', delivered = 'done', skipped = 'done',
  cancelled = 'done', dead = 'dead' }
local refilled_lanes = {}

-- every place of an id: {kind, lane or token}
local function places_of(id, own_lane, more_lanes)
  local places, searched = {}, { [''] = true }
  local function search(lane)
    if searched[lane] then return end
    searched[lane] = true
    search_left = search_left - redis.call('LLEN', LANE .. lane)
    for _ = 1, #redis.call('LPOS', LANE .. lane, id, 'COUNT', 0) do places[#places + 1] = { 'lane', lane } end
  end
  search(own_lane)
  for lane in string.gmatch(more_lanes, '[^\n]+') do search(lane) end
  for _, token in ipairs(tokens) do
    if redis.call('HEXISTS', CLAIMS .. token, id) == 1 then places[#places + 1] = { 'claims', token } end
  end
  for _, kind in ipairs({ 'quarantine', 'parked', 'done', 'dead' }) do
    if redis.call('ZSCORE', INDEX[kind], id) then places[#places + 1] = { kind } end
  end
  return places
end

local function remove(id, place)
  if place[1] == 'lane' then
    redis.call('LREM', LANE .. place[2], -1, id) -- from its end: the first one stays the longest
  elseif place[1] == 'claims' then
    redis.call('HDEL', CLAIMS .. place[2], id)
  else
    redis.call('ZREM', INDEX[place[1]], id)
  end
end

-- puts a postback where it waits: its lane, or the quarantine if it may have killed its process
local function wait(id, lane, begun)
  local suspicion = redis.call('HGET', RECORD .. id, 'suspicion')
  if suspicion or begun then
    if not suspicion then redis.call('HSET', RECORD .. id, 'suspicion', 'few') end
    redis.call('ZADD', QUARANTINE, suspicion == 'alone' and ALONE or FEW_SLOW, id)
  else
    redis.call('LPUSH', LANE .. lane, id)
    refilled_lanes[lane] = true
  end
end

-- does what reap.lua does with a claim: a POST that may have begun stands as an attempt, outcome unknown
local function take_back(id, account, lane)
  local record = RECORD .. id
  local r = redis.call('HMGET', record, 'attempts', 'sent_ms', 'cancel')
  local number = tonumber(r[1] or 0)
  if number > 0 and redis.call('HEXISTS', record, 'attempt:' .. number) == 0 then
    redis.call('HSET', record, 'attempt:' .. number, cjson.encode({
      number = number, at_ms = tonumber(r[2] or now), outcome = 'unknown',
      detail = 'the ledger had lost sight of it; postbacks doctor sent it again' }))
  end
  if r[3] then return finish(id, account, 'cancelled', 'revoked', DONE) end
  redis.call('HSET', record, 'state', 'waiting')
  changed[#changed + 1] = id
  wait(id, lane, number > 0)
end

local function repair(id, state, account, lane, places)
  local kind, kept = KIND_OF_STATE[state], nil
  if state ~= '' and not kind then return end -- a state of a later version: not ours to touch
  if lane == '' and (kind == 'lane' or kind == 'claims' or kind == 'parked') then return end -- of an unknown account
  for _, place in ipairs(places) do
    local right = place[1] == kind and (kind ~= 'lane' or place[2] == lane)
      or kind == 'lane' and place[1] == 'quarantine'
    if right and not kept then kept = place else remove(id, place) end
  end
  if kept or state == '' then return end
  local r = redis.call('HMGET', RECORD .. id, 'next_ms', 'ended_ms')
  if kind == 'lane' then
    wait(id, lane, false)
  elseif kind == 'claims' then
    take_back(id, account, lane)
  elseif kind == 'parked' then
    redis.call('ZADD', PARKED, tonumber(r[1] or now), id)
  else
    redis.call('ZADD', INDEX[kind], tonumber(r[2] or now), id)
  end
end

local rows = {}
for i = 5 + extra, #ARGV, 2 do
  if search_left <= 0 then break end
  local id = ARGV[i]
  local r = redis.call('HMGET', RECORD .. id, 'state', 'account', 'group', 'sequence', 'in_lane')
  local state, lane = r[1], ''
  if not state then state = redis.call('EXISTS', RECORD .. id) == 1 and '?' or '' end
  if r[2] and r[3] and r[3] ~= '' then lane = r[2] .. '/' .. r[3] end
  local remembered = state == 'cancelled' and not r[4] -- by `cancel`: it never was a postback
  local places = places_of(id, lane, ARGV[i + 1])
  local right = KIND_OF_STATE[state] == 'lane' and 'lane ' .. lane or KIND_OF_STATE[state]
  local names = {}
  for at, place in ipairs(places) do names[at] = place[2] and place[1] .. ' ' .. place[2] or place[1] end
  local sound = #places == 1 and (names[1] == right or places[1][1] == 'claims' and right == 'claims'
    or state == 'waiting' and names[1] == 'quarantine' or r[5] and names[1] == 'lane ' .. lane)
  if #places == 0 and (state == '' or remembered) then sound = true end
  if mode == 'repair' and not sound then
    repair(id, remembered and '' or state, r[2], lane, places)
    if r[5] then redis.call('HDEL', RECORD .. id, 'in_lane') end
  end
  rows[#rows + 1] = { id, state, lane, remembered and 1 or r[5] and 2 or 0, r[4] or '0', unpack(names) }
end
for lane in pairs(refilled_lanes) do make_ready(lane) end
publish_changes()
return rows
