-- Put off an entry that was claimed, unless somebody has scheduled it or claimed it since.
--   KEYS[1] the queue
--   ARGV[1] the upload, 16 bytes   ARGV[2] the end of the claim, ms   ARGV[3] due at, ms
-- Returns 1 when done, else 0.
assert(#KEYS == 1 and #ARGV == 3, 'postpone.lua takes 1 key and 3 arguments')
local queue, id = KEYS[1], ARGV[1]

local score = redis.call('ZSCORE', queue, id)
if not score or math.floor(tonumber(score)) ~= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', queue, 'XX', ARGV[3], id)
return 1
