-- One stretch of an index, newest first. Changes nothing.
--   KEYS[1] the index
--   ARGV[1] how many entries
--   ARGV[2], ARGV[3] creation, ms, and upload, 16 bytes, of the entry to go on after, or empty to begin
-- Returns upload and creation in turns. When the entry to go on after is gone, some that came before it may be repeated:
-- those created in the same millisecond.
assert(#KEYS == 1 and #ARGV == 3, 'page.lua takes 1 key and 3 arguments')
local index, count = KEYS[1], tonumber(ARGV[1])
local start = 0
if ARGV[2] ~= '' then
  local rank = redis.call('ZREVRANK', index, ARGV[3])
  start = rank and rank + 1 or redis.call('ZCOUNT', index, '(' .. ARGV[2], '+inf')
end
return redis.call('ZREVRANGE', index, start, start + count - 1, 'WITHSCORES')
