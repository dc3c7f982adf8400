-- full: the lanes of one page that have so many units open. Reads only.
--
-- KEYS OPEN, LANE_STATE
-- ARGV[2] cursor of the page, 0 first   ARGV[3] lanes a page, about (HSCAN)   ARGV[4] units from which on
-- Returns {next cursor, lanes}, a lane: {lane, units, 1 if its last POST failed, 1 if its account is paused}
local units_min = tonumber(ARGV[4])
local scanned, lanes = redis.call('HSCAN', OPEN, ARGV[2], 'COUNT', ARGV[3]), {}
for i = 1, #scanned[2], 2 do
  local lane, units = scanned[2][i], tonumber(scanned[2][i + 1])
  if units >= units_min then
    local route = route_of(account_of(lane))
    lanes[#lanes + 1] = { lane, units, redis.call('HGET', LANE_STATE .. lane, 'failing') == '1' and 1 or 0,
      route and route.paused and 1 or 0 }
  end
end
return { scanned[1], lanes }
