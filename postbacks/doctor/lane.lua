-- lane: lanes with their state, their claims counted, and their places in the rings, in one instant;
-- and, where asked, puts the counts and the rings right.
--
-- ARGV[2] mode (inspect | repair)   ARGV[3] number of tokens of delivering loops whose claims are counted
--   besides those of CLAIMERS   ARGV[4..] the tokens, then the lanes
-- Returns a row a lane, as it was before: {lane, ids waiting, claimed as its state notes, claims counted, held as
--   its state notes, held counted, 1 if it may be claimed from, 1 if it is in the trusted ring, 1 if in the suspect
--   one, 1 if it waits for its account's rate, its pause or for room}.
-- None where more is claimed than can be counted without holding the broker up.
-- Atomic: nothing is claimed or noted between the count and what is written.
local mode, extra = ARGV[2], tonumber(ARGV[3])
local tokens, is_token, counted, held = redis.call('ZRANGE', CLAIMERS, 0, -1), {}, {}, {}
for _, token in ipairs(tokens) do is_token[token] = true end
for i = 4, 3 + extra do
  if not is_token[ARGV[i]] then tokens[#tokens + 1] = ARGV[i] end
end
local OPEN_MAX, size = 3000, 0
for _, token in ipairs(tokens) do size = size + redis.call('HLEN', CLAIMS .. token) end
if size > OPEN_MAX then return {} end
for _, token in ipairs(tokens) do
  local entries = redis.call('HGETALL', CLAIMS .. token)
  for i = 1, #entries, 2 do
    local owner = redis.call('HMGET', RECORD .. entries[i], 'account', 'group')
    if owner[1] and owner[2] then
      local lane = owner[1] .. '/' .. owner[2]
      counted[lane] = (counted[lane] or 0) + 1
      if entries[i + 1] == '0' then held[lane] = (held[lane] or 0) + 1 end
    end
  end
end

-- whether a lane comes back by itself: for its rate, or from its account, or from the endpoint that its first one goes to; or when
-- its account is not paused any more
local function is_delayed(lane)
  if redis.call('ZSCORE', DELAYED, lane) or redis.call('ZSCORE', PAUSED, account_of(lane)) then return true end
  local head = redis.call('LINDEX', LANE .. lane, 0)
  for _, place in ipairs({ account_of(lane), redis.call('HGET', RECORD .. head, 'endpoint') or '' }) do
    if redis.call('ZSCORE', DELAYED, place) and redis.call('ZSCORE', WAITING_FOR_ROOM .. place, lane) then return true end
  end
  return false
end

local rows = {}
for i = 4 + extra, #ARGV do
  local lane = ARGV[i]
  local waiting, lane_state, count = redis.call('LLEN', LANE .. lane), lane_state_of(lane), counted[lane] or 0
  local trusted = redis.call('ZSCORE', READY_TRUSTED, lane) and 1 or 0
  local suspect = redis.call('ZSCORE', READY_SUSPECT, lane) and 1 or 0
  local held_count, can = held[lane] or 0, is_claimable(lane_state)
  local delayed = waiting > 0 and can and trusted + suspect == 0 and is_delayed(lane)
  rows[#rows + 1] = { lane, waiting, lane_state.claimed, count, lane_state.held, held_count, can and 1 or 0, trusted, suspect,
    delayed and 1 or 0 }
  if mode == 'repair' then
    if lane_state.claimed ~= count then redis.call('HSET', LANE_STATE .. lane, 'claimed', count) end
    if lane_state.held ~= held_count then redis.call('HSET', LANE_STATE .. lane, 'held', held_count) end
    if waiting == 0 or trusted + suspect == 2 and lane_state.suspect then redis.call('ZREM', READY_TRUSTED, lane) end
    if waiting == 0 or trusted + suspect == 2 and not lane_state.suspect then redis.call('ZREM', READY_SUSPECT, lane) end
    if waiting > 0 and trusted + suspect == 0 and not delayed then make_ready(lane) end
  end
end
return rows
