-- take_in: moves the oldest messages of Celery's queue to the intake list, under a lease. Only one tick holds the intake at a
-- time, so messages are accepted in the order in which they came. What a dead tick had taken and not accepted is handed out
-- again before anything new, and with care, as a message may have killed it: a few are accepted at a time after the first
-- death, then each alone.
--
-- KEYS QUEUE_LISTS, INTAKE, INTAKE_LEASE, RING_CLOCK
-- ARGV[2] token of the tick   ARGV[3] lease, ms   ARGV[4] messages at most   ARGV[5] messages that are a few
-- ARGV[6] bytes after which no further message is taken
-- Returns false if another tick holds the intake, else {how many of them to accept at once (0: all), how many ticks died while
--   they accepted the first one alone, the messages, oldest first} (rows.TakenIn).
-- Atomic: a message is in the queue or in the intake, never in both or in none.
local token, lease_ms, at_most, few = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local lease = redis.call('HMGET', INTAKE_LEASE, 'token', 'expires_ms', 'deaths', 'alone_deaths', 'alone')
local deaths, alone_deaths = tonumber(lease[3] or 0), tonumber(lease[4] or 0)
if lease[1] and lease[1] ~= token then
  local ends = tonumber(lease[2])
  -- a lease that ends later than any can is from before the clock was put back: its tick may be long dead
  if ends > now and ends <= now + 2 * lease_ms then return false end
  if redis.call('EXISTS', INTAKE) == 1 then -- the tick died, or was silent for as long
    if lease[5] then alone_deaths = alone_deaths + 1 end
    deaths = deaths + 1
    redis.call('HSET', INTAKE_LEASE, 'deaths', deaths, 'alone_deaths', alone_deaths)
    redis.call('HDEL', INTAKE_LEASE, 'alone')
  end
end
redis.call('HSET', INTAKE_LEASE, 'token', token, 'expires_ms', now + lease_ms)

local messages, bytes, bytes_max = {}, 0, tonumber(ARGV[6])
local taken_before = redis.call('LLEN', INTAKE)
local room = at_most - taken_before
if deaths > 0 then room = 0 end -- nothing new joins what is suspected
while #messages < taken_before and bytes < bytes_max do
  messages[#messages + 1] = redis.call('LINDEX', INTAKE, #messages)
  bytes = bytes + #messages[#messages]
end
for _, queue in ipairs(QUEUE_LISTS) do
  while room > 0 and bytes < bytes_max do
    -- one by one, so that the append-only file holds the move alone and not the message once more
    local message = redis.call('LMOVE', queue, INTAKE, 'RIGHT', 'RIGHT')
    if not message then break end
    messages[#messages + 1] = message
    bytes = bytes + #message
    room = room - 1
  end
end
-- what comes later has waited since now at most (accept.lua)
if #messages == 0 and at_most > 0 then redis.call('HSET', RING_CLOCK, 'emptied', now) end
local at_once = deaths == 0 and 0 or deaths == 1 and few or 1
return { at_once, alone_deaths, messages }
