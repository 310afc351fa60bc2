-- Take what is due from a queue, for a while: each entry that is given moves to the end of the lease, so that nobody else
-- is given it before, and somebody is if nothing comes of it.
--   KEYS[1] the queue
--   ARGV[1] now, ms   ARGV[2] end of the lease, ms   ARGV[3] how many at the most
-- Returns uploads, 16 bytes each, and when they were due, in turns; the longest overdue first.
assert(#KEYS == 1 and #ARGV == 3, 'claim.lua takes 1 key and 3 arguments')
local queue = KEYS[1]

local due = redis.call('ZRANGEBYSCORE', queue, '-inf', ARGV[1], 'WITHSCORES', 'LIMIT', 0, ARGV[3])
for i = 1, #due, 2 do
  redis.call('ZADD', queue, 'XX', ARGV[2], due[i])
end
return due
