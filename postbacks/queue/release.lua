-- release: puts parked postbacks whose countdown has ended back into their lanes. A claim does so with some of them, too.
--
-- ARGV[2] postbacks at most
-- Returns how many were released; as many as asked for means that there may be more.
-- Atomic: an id is parked, in its lane or in quarantine, never in two or in none.
return release_due(tonumber(ARGV[2]))
