-- What a principal uses under each of some policies. Changes nothing.
--   KEYS[n] a ledger; all in the principal's {pNN}
--   ARGV[1] now, ms   ARGV[2] the UTC day
-- Returns for each ledger {reservations, bytes reserved or settled today, when the bucket is full again in us}.
assert(#KEYS >= 1 and #ARGV == 2, 'usage.lua takes keys and 2 arguments')
local now, today = tonumber(ARGV[1]), tonumber(ARGV[2])
local usage = {}
for i = 1, #KEYS do
  local seen = reservations(KEYS[i], now, nil)
  usage[i] = { seen.live, seen.bytes + settled(KEYS[i], today), tonumber(redis.call('HGET', KEYS[i], 'r') or 0) }
end
return usage
