-- take_in: moves the oldest messages of the Celery queue to the intake list, under a lease.
-- Only one tick holds the intake at a time, so messages are accepted in the order they came. What a
-- dead tick had taken and not accepted is handed out again before anything new, and with care: a message
-- may have killed it. So a few are accepted at a time after the first death, then each alone.
--
-- KEYS QUEUE_LISTS, INTAKE, INTAKE_LEASE, TURNS
-- ARGV[2] token of the tick   ARGV[3] lease, ms   ARGV[4] messages at most   ARGV[5] messages that are a few
-- ARGV[6] bytes after which no further message is taken
-- Returns false if another tick holds the intake, else {how many of them to accept at once (0: all), how many
--   ticks died while they accepted the first one alone, the messages, oldest first}.
-- Atomic: a message is in the queue or in the intake, never in both or in none.
local token, lease_ms, at_most, few = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])

local lease = redis.call('HMGET', INTAKE_LEASE, 'token', 'expires_ms', 'deaths', 'alone_deaths', 'alone')
local deaths, alone_deaths = tonumber(lease[3] or 0), tonumber(lease[4] or 0)
if lease[1] and lease[1] ~= token then
  local ends = tonumber(lease[2])
  -- one that ends later than any can was given before the clock was put back: its tick may be dead for an hour
  if ends > now and ends <= now + 2 * lease_ms then return false end
  if redis.call('EXISTS', INTAKE) == 1 then -- it died, or was silent for as long
    if lease[5] then alone_deaths = alone_deaths + 1 end
    deaths = deaths + 1
    redis.call('HSET', INTAKE_LEASE, 'deaths', deaths, 'alone_deaths', alone_deaths)
    redis.call('HDEL', INTAKE_LEASE, 'alone')
  end
end
redis.call('HSET', INTAKE_LEASE, 'token', token, 'expires_ms', now + lease_ms)

local messages, bytes, bytes_max = {}, 0, tonumber(ARGV[6])
local left = redis.call('LLEN', INTAKE)
local room = at_most - left
if deaths > 0 then room = 0 end -- nothing new joins what is suspected
while #messages < left and bytes < bytes_max do
  messages[#messages + 1] = redis.call('LINDEX', INTAKE, #messages)
  bytes = bytes + #messages[#messages]
end
for _, queue in ipairs(QUEUE_LISTS) do
  while room > 0 and bytes < bytes_max do
    -- one by one: so the append-only file is told of the move and not, once more, of the message
    local message = redis.call('LMOVE', queue, INTAKE, 'RIGHT', 'RIGHT')
    if not message then break end
    messages[#messages + 1] = message
    bytes = bytes + #message
    room = room - 1
  end
end
-- what comes from now on has waited for no longer than since now (accept.lua)
if #messages == 0 and at_most > 0 then redis.call('HSET', TURNS, 'emptied', now) end
local at_once = deaths == 0 and 0 or deaths == 1 and few or 1
return { at_once, alone_deaths, messages }
