-- take_in: moves the oldest messages of the Celery queue to the intake list, under a lease.
-- Only one tick holds the intake at a time, so messages are accepted in the order they came. What a
-- dead tick had taken and not accepted is handed out again before anything new.
--
-- KEYS[17..]  list  the queue's priority lists, most urgent first
-- ARGV[2] token of the tick   ARGV[3] lease, ms   ARGV[4] messages at most
-- Returns false if another tick holds the intake, else the messages, oldest first.
-- Atomic: a message is in the queue or in the intake, never in both or in none.
local token, lease_ms, at_most = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local lease = redis.call('HMGET', INTAKE_LEASE, 'token', 'expires_ms')
local ends = tonumber(lease[2] or 0)
-- one that ends later than any can was given before the clock was put back: its tick may be dead for an hour
if lease[1] and lease[1] ~= token and ends > now and ends <= now + 2 * lease_ms then return false end
redis.call('HSET', INTAKE_LEASE, 'token', token, 'expires_ms', now + lease_ms)

local room = at_most - redis.call('LLEN', INTAKE)
for i = 17, #KEYS do
  if room <= 0 then break end
  local messages = redis.call('RPOP', KEYS[i], room)
  if messages then
    redis.call('RPUSH', INTAKE, unpack(messages))
    room = room - #messages
  end
end
return redis.call('LRANGE', INTAKE, 0, -1)
