-- Lease an intent anew whose lease ran out, under its own id: count it again among what is under way, but take no token
-- for it; or change nothing.
--   KEYS[1] the record   KEYS[2] the ledger   KEYS[3] the due queue      all in the principal's {pNN}
--   ARGV[1] the upload, 16 bytes   ARGV[2] now, ms                ARGV[3] the UTC day
--   ARGV[4] bytes to reserve       ARGV[5] end of the lease, ms   ARGV[6] the record
--   ARGV[7] the revision that the record must be at, 4 bytes      ARGV[8] 1: limits refuse, 0: they report
--   ARGV[9] max_active, or -1      ARGV[10] daily_bytes, or -1
--   ARGV[11] life of the ledger, ms                               ARGV[12] most reservations
-- Returns {0} when leased, {1, hit, number} when refused ("hit" as in ledger.lua), {2} when the record has changed.
assert(#KEYS == 3 and #ARGV == 12, 'resume.lua takes 3 keys and 12 arguments')
local record, ledger, due = KEYS[1], KEYS[2], KEYS[3]
local id, now, bytes, ends = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])

local old = redis.call('GET', record)
if not old or string.sub(old, 3, 6) ~= ARGV[7] or string.byte(old, 2) ~= 0 then
  return { 2 }
end
local hit, number, dead =
  obstacle(ledger, id, bytes, now, tonumber(ARGV[3]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[12]))
if hit == CEILING or (hit ~= 0 and ARGV[8] == '1') then
  return { 1, hit, number }
end

redis.call('SET', record, ARGV[6], 'KEEPTTL')
reserve(ledger, id, bytes, ends, dead, ARGV[11])
redis.call('ZADD', due, ARGV[5], id)
return { 0 }
