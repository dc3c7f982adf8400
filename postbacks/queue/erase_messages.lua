-- erase_messages: takes messages out of Celery's queue, and out of the intake while no tick holds it.
--
-- KEYS QUEUE_LISTS, INTAKE, INTAKE_LEASE, FORGET
-- ARGV[2] request that it is done for   ARGV[3] token that the intake's lease gets where a message leaves the intake, so that a
--   tick which was silent for too long accepts nothing more of it
-- ARGV[4] ms that a lease lasts   ARGV[5..] the messages as they stand there
-- Returns for each message 1 if it is gone, 0 if a tick has it by now, or had taken it before.
-- Atomic: a message is where it was, or counted as taken out.
local request, token, lease_ms = FORGET .. ARGV[2], ARGV[3], tonumber(ARGV[4])
local gone, count = {}, 0

local lease = redis.call('HMGET', INTAKE_LEASE, 'token', 'expires_ms')
local ends = tonumber(lease[2] or 0)
local is_held = lease[1] and ends > now and ends <= now + 2 * lease_ms

local function take_out(message)
  for _, queue in ipairs(QUEUE_LISTS) do
    if redis.call('LREM', queue, 1, message) == 1 then return 1 end
  end
  if is_held then return 0 end
  local was_first = redis.call('LINDEX', INTAKE, 0) == message
  if redis.call('LREM', INTAKE, 1, message) == 0 then return 0 end
  if lease[1] then redis.call('HSET', INTAKE_LEASE, 'token', token, 'expires_ms', 0) end
  if was_first then redis.call('HDEL', INTAKE_LEASE, 'alone', 'alone_deaths') end -- another one is the first now
  return 1
end

for i = 5, #ARGV do
  gone[#gone + 1] = take_out(ARGV[i])
  count = count + gone[#gone]
end
if count > 0 then redis.call('HINCRBY', request, 'messages', count) end
return gone
