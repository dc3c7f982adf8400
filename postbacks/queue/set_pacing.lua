-- set_pacing: writes the weight, the rate and the most open POSTs of accounts, where the other scripts read them. What waits by an
-- account's former ones takes turns again.
--
-- KEYS PACING, RATES
-- ARGV[2..] two an account: its name, and the text of its entry (`_pacing.lua`), '' for what every account has
-- Returns how many of them have changed.
-- Atomic: no POST begins between the new rules and the end of the waits by the old ones.
local changed = 0
for at = 2, #ARGV, 2 do
  local account, text = ARGV[at], ARGV[at + 1]
  if (redis.call('HGET', PACING, account) or '') ~= text then
    if text == '' then
      redis.call('HDEL', PACING, account)
      redis.call('HDEL', RATES, account)
    else
      redis.call('HSET', PACING, account, text)
    end
    requeue_account(account)
    changed = changed + 1
  end
end
return changed
