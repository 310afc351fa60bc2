-- Take what is due from a queue, for a while: each entry that is given moves to the end of the lease, so that nobody else
-- is given it before, and somebody is if nothing comes of it.
--   KEYS[1] the queue
--   ARGV[1] now, ms   ARGV[2] end of the lease, ms   ARGV[3] how many at the most
-- Returns uploads, 16 bytes each, and when they were due, in turns; the longest overdue first.
--
-- A score is when an entry is due, in ms. That of an entry which was claimed has behind the point, in units of ten seconds,
-- of which 4096 make one, how long it will have been due when the lease ends: what nobody settles does not become younger.
-- Doubles hold no finer fractions of such numbers; eleven hours are the most. Whoever schedules it writes a whole number.
assert(#KEYS == 1 and #ARGV == 3, 'claim.lua takes 1 key and 3 arguments')
local UNITS, UNIT = 4096, 10000
local queue, now, ends = KEYS[1], tonumber(ARGV[1]), tonumber(ARGV[2])

-- Fractions aside, what is due now is.
local due = redis.call('ZRANGEBYSCORE', queue, '-inf', string.format('(%.0f', now + 1), 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for i = 1, #due, 2 do
  local score = tonumber(due[i + 1])
  local whole = math.floor(score)
  local since = whole - (score - whole) * UNITS * UNIT
  local late = math.min(math.floor((ends - since) / UNIT + 0.5), UNITS - 1)
  redis.call('ZADD', queue, 'XX', string.format('%.17g', ends + math.max(late, 0) / UNITS), due[i])
  due[i + 1] = string.format('%.0f', since)
end
return due
