-- Say when an upload is to be looked at next, as decided for one revision of it; or take it from the queue.
--   KEYS[1] the record   KEYS[2] the due queue      both in the principal's {pNN}
--   ARGV[1] the upload, 16 bytes   ARGV[2] the revision that the record must be at, 4 bytes, or empty: there must be none
--   ARGV[3] due at, ms, or empty for never again
-- Returns 1 when done, 0 when the record has changed since.
assert(#KEYS == 2 and #ARGV == 3, 'schedule.lua takes 2 keys and 3 arguments')
local record, due = KEYS[1], KEYS[2]
local id = ARGV[1]

local revision = redis.call('GETRANGE', record, 2, 5)
if revision ~= ARGV[2] then
  return 0
end
if ARGV[3] == '' then
  redis.call('ZREM', due, id)
else
  redis.call('ZADD', due, ARGV[3], id)
end
return 1
