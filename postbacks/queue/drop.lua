-- drop: lets dead postbacks leave the ledger before their retention, as an operator has asked for. One that is in another state by
-- now, or was given up again since then, is left alone.
--
-- KEYS DEAD, TOTALS, RECORD
-- ARGV[2] ms since the epoch until which they were given up   ARGV[3] the account, '' for any   ARGV[4..] ids
-- Returns how many were dropped.
-- Atomic: a record and its place in every index go together.
local until_ms, account = tonumber(ARGV[2]), ARGV[3]
local dropped = 0
for i = 4, #ARGV do
  local id = ARGV[i]
  local since = redis.call('ZSCORE', DEAD, id)
  if since and tonumber(since) <= until_ms
      and (account == '' or redis.call('HGET', RECORD .. id, 'account') == account) then
    drop(DEAD, id)
    changed[#changed + 1] = id
    dropped = dropped + 1
  end
end
if dropped > 0 then redis.call('HINCRBY', TOTALS, 'asked_dropped', dropped) end
publish_changes()
return dropped
