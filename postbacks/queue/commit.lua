-- commit: notes attempts and moves each postback on, in one step, so that a note and its parking
-- never part. An id whose claim was lost meanwhile is left alone: somebody else has it.
--
-- ARGV[2] token   ARGV[3] lease, ms   ARGV[4] transfers a lane may have at most
-- ARGV[5] seconds after which an idle lane's pace is forgotten
-- ARGV[6..] eight a postback: id, lane, verdict (delivered | parked | dead), attempt number,
--   attempt as JSON, countdown in ms, mood (ok | slow | failed |
--   shared: failed as well, and its own POST has not begun), reason
-- Returns one row a postback {state or '', next_ms or 0}; '' means that the claim was lost.
local token, lease_ms, limit_max, forget_s = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), ARGV[5]
local claims = CLAIMS .. token
local WIDTH, FIRST = 8, 6
local results, lanes, gone = {}, {}, leaving()

if redis.call('ZSCORE', CLAIMERS, token) then redis.call('ZADD', CLAIMERS, now + lease_ms, token) end

for at = FIRST, #ARGV, WIDTH do
  local id, lane, verdict, number = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  local attempt, countdown_ms, mood, reason = ARGV[at + 4], tonumber(ARGV[at + 5]), ARGV[at + 6], ARGV[at + 7]
  local shared = mood == 'shared' and redis.call('HGET', claims, id) == '0'
  if mood == 'shared' then mood = 'failed' end
  local noted = redis.call('HEXISTS', RECORD .. id, 'attempt:' .. number) == 1
  if noted or redis.call('HDEL', claims, id) == 0 then
    results[#results + 1] = { '', 0 }
  else
    local record, account, next_ms, state = RECORD .. id, account_of(lane), 0, verdict
    redis.call('HSET', record, 'attempts', number, 'attempt:' .. number, attempt)
    if verdict == 'delivered' then
      finish(id, account, 'delivered', '', DONE)
    else
      redis.call('HINCRBY', record, 'failures', 1)
      if redis.call('HEXISTS', record, 'cancel') == 1 then
        state = 'cancelled'
        finish(id, account, state, 'revoked', DONE)
      elseif verdict == 'parked' then
        next_ms = now + countdown_ms
        redis.call('HSET', record, 'state', 'parked', 'next_ms', next_ms)
        redis.call('HDEL', record, 'suspicion', 'alone_deaths') -- its process lives
        redis.call('ZADD', PARKED, next_ms, id)
      else
        finish(id, account, 'dead', reason, DEAD)
      end
    end
    local tally = lanes[lane]
    if not tally then
      tally = { noted = 0, succeeded = 0, shared = 0 }
      lanes[lane] = tally
    end
    tally.noted, tally.mood = tally.noted + 1, mood
    if shared then tally.shared = tally.shared + 1 else gone.note(id, account) end
    tally.succeeded = mood == 'failed' and 0 or tally.succeeded + 1
    results[#results + 1] = { state, next_ms }
  end
end

for lane, tally in pairs(lanes) do
  local pace = pace_of(lane)
  local failing, suspect = tally.mood == 'failed', tally.mood ~= 'ok'
  local limit = failing and 1 or math.min(limit_max, pace.limit + tally.succeeded)
  local tag = pace.tag
  if suspect ~= pace.suspect then -- the other ring has a time of its own
    redis.call('ZREM', pace.suspect and SUSPECT or TRUSTED, lane)
    tag = 0
  end
  local claimed = math.max(0, pace.claimed - tally.noted)
  redis.call('HSET', PACE .. lane, 'claimed', claimed, 'limit', limit,
    'failing', failing and 1 or 0, 'suspect', suspect and 1 or 0, 'tag', tag)
  if pace.held > 0 then
    redis.call('HSET', PACE .. lane, 'held', claimed > 0 and math.max(0, pace.held - tally.shared) or 0)
  end
  if claimed == 0 then redis.call('EXPIRE', PACE .. lane, forget_s) end
  make_ready(lane)
end
gone.finish()
return results
