#!lua name=tidegate_1
--[[
What Tidegate asks of Redis, each in one atomic step. Runs as a library of functions (FUNCTION LOAD, FCALL) or,
where functions are refused, as a script (EVALSHA) whose first argument is the function's name.

Any client may publish with the gateways' full promise. P is the prefix, c the channel, and p its partition:
crc32(c) % partitions, as of zlib, 256 partitions unless configured. In Python: zlib.crc32(b"news") % 256 is 80.

  redis-cli FCALL tidegate_1_publish 4 \
    'tidegate:{80}:meta:news' 'tidegate:{80}:log:news' 'tidegate:{80}:names' 'tidegate:{80}:state' \
    news 0 P 1000 1048576 3600000 json '' '{"hello":"world"}'

KEYS  P:{p}:meta:c  P:{p}:log:c  P:{p}:names  P:{p}:state  [P:{p}:idem:c/KEY, for an idempotency key]
ARGV  1 channel: 1 to 200 of A-Z a-z 0-9 _ . : ~ @ -
      2 number of the Redis database
      3 P, or S (SPUBLISH) in a Cluster
      4 5 6 the history: messages, bytes, age in milliseconds; best those of the gateways' configuration
      7 json, text or bytes
      8 event: 1 to 64 of A-Z a-z 0-9 _ . -, or empty
      9 payload
     10 optional: digest that tells one use of an idempotency key from another; made here where empty
     11 optional: life of the idempotency key in milliseconds, 300000 where empty
     12 optional: W3C trace parent
Reply epoch, offset, time in ms, 1 if it is a duplicate, oldest offset kept, receivers. The id is <epoch>-<offset>.
Errors of ours begin with TG: TGARG (an argument is wrong), TGKEYREUSED, TGFORMAT.

What is kept:
  meta   the counting. Lives a day longer than the log.
  log    a stream. <offset>-0: m is the envelope as published, s the bytes of all messages before it. Entries
         before meta's floor are gone, though Redis may not have freed them yet.
  names  the channels that may have a log.
  state  of a partition: "<born> <fence> <evicted>". Before the second `born` nobody can say that a channel
         without meta was empty: Redis may have lost it.
A version adds only at the end (of an envelope: a block after the trace parent, behind its length in two bytes), so that
one version forward is read too, and a gateway that was brought up to date can be brought back.
The fence is the server's master_replid, another one at each start and promotion: acknowledged messages may have
been lost, and their offsets are about to be handed out again, so a new epoch begins.
]]

local DAY = 86400000
local EXACT = 9007199254740992
local LONGEST = 1e13
-- version, top, bytes of all messages, time of the newest, deleted to, floor; a floor from before that was looked at,
-- bytes before it, its time; began, vouch from; epoch, fence, past epochs "epoch:end,"
local META = '>BI8I8I8I8I8I8I8I8I8I8Bc0Bc0Hc0'
-- version, kind, offset, time, floor, epoch; payload kind, event, trace parent
local ENVELOPE = '>BBI8I8I8Bc0BBc0Hc0'
local KINDS = { json = 0, text = 1, bytes = 2 }

local function wrong(what)
  return redis.error_reply('TGARG ' .. what)
end

local function number(text)
  local n = tonumber(text)
  if n and n >= 0 and n < EXACT and n % 1 == 0 then return n end
end

-- Lua's own notation is rounded to 14 digits.
local function decimal(n)
  return string.format('%d', n)
end

local function milliseconds()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function info(section, field)
  local text = redis.pcall('INFO', section)
  if type(text) ~= 'string' then return '' end
  local _, from = string.find(text, field, 1, true)
  return from and string.match(text, '^%x+', from + 1) or ''
end

-- '' where the user may not ask: then there is no fence. A library remembers it for a hundredth of a second, which
-- saves most of the cost under load: no server is demoted, brought up to date and promoted again within that.
local fence_seen, fence_until = '', 0
local function fence_at(now)
  if fence_seen == '' or now >= fence_until or now < fence_until - 10 then
    fence_seen, fence_until = info('replication', 'master_replid:'), now + 10
  end
  return fence_seen
end

local function epoch_of(...)
  local hex, epoch = redis.sha1hex(table.concat({ ... }, ' ')), {}
  for i = 1, 8 do
    local at = tonumber(string.sub(hex, 4 * i - 3, 4 * i), 16) % 36 + 1
    epoch[i] = string.sub('0123456789abcdefghijklmnopqrstuvwxyz', at, at)
  end
  return table.concat(epoch)
end

-- Ends an epoch; of those before it, three are remembered with it.
local function next_epoch(m, key, seed)
  local _, third = string.find(m.past, '^[^,]*,[^,]*,[^,]*,')
  m.past = m.epoch .. ':' .. decimal(m.top) .. ',' .. string.sub(m.past, 1, third)
  m.epoch = epoch_of(key, seed, m.epoch)
end

local function save(key, m, ...)
  local text = struct.pack(META, 1, m.top, m.total, m.time, m.deleted, m.floor, m.known, m.before, m.oldest, m.began,
    m.vouch, #m.epoch, m.epoch, #m.fence, m.fence, #m.past, m.past)
  return redis.pcall('SET', key, text, ...)
end

-- The counting of a channel; nil where there is none, or none that can be read.
local function load(key, fence)
  local text = redis.pcall('GET', key)
  if type(text) ~= 'string' then return nil end
  local fine, version, top, total, time, deleted, floor, known, before, oldest, began, vouch, epoch, held, past =
    pcall(struct.unpack, META, text)
  if not fine or version < 1 or version > 2 or #epoch ~= 8 then return nil end
  local m = { top = top, total = total, time = time, deleted = deleted, floor = floor, known = known,
    before = before, oldest = oldest, began = began, vouch = vouch, epoch = epoch, fence = held, past = past }
  if held ~= fence and fence ~= '' then
    -- Not by the time: where it cannot be stored, all who ask must hear the same.
    if held ~= '' then next_epoch(m, key, fence) end
    m.fence, m.changed = fence, true
  end
  return m
end

-- The second from which on a channel without meta was surely empty, and whether that is stored. A state that is out
-- of date is renewed; one that is missing is made where `create` says so.
local function vouched(key, now, fence, create)
  local text = redis.pcall('GET', key)
  local born, held, gone
  if type(text) == 'string' then
    born, held, gone = string.match(text, '^(%d+) (%x*) (%x*)$')
  end
  local evicted = info('stats', 'evicted_keys:')
  local same = born and (held == fence or held == '' or fence == '') and (gone == evicted or evicted == '')
  if same and (held ~= '' or fence == '') then return tonumber(born), true end
  local second = same and tonumber(born) or math.floor(now / 1000) + 1
  if not text and not create then return second, false end
  local value = decimal(second) .. ' ' .. (fence ~= '' and fence or held or '') .. ' ' .. evicted
  return second, not redis.pcall('SET', key, value).err
end

-- Bytes before, and time of, the first entry from `offset` on.
local function entry(log, offset)
  local found = redis.pcall('XRANGE', log, decimal(offset), '+', 'COUNT', 1)
  local fields = found[1] and found[1][2]
  local before = fields and fields[3] == 's' and tonumber(fields[4])
  if before and #fields[2] >= 27 then return before, struct.unpack('>I8', fields[2], 11) end
end

-- The first of the offsets lo to hi for which `fine` holds, given that it then holds for all after it, with what
-- `entry` says of it; nil where there is none. Looks near the beginning first.
local function first(log, lo, hi, fine)
  local before, time
  local at, step = lo, 1
  while lo <= hi do
    local b, t = entry(log, at)
    if b and fine(b, t) then
      before, time, hi, step = b, t, at - 1, nil
    else
      lo = at + 1
    end
    if step then
      at, step = math.min(lo + step - 1, hi), step * 2
    else
      at = math.floor((lo + hi) / 2)
    end
  end
  if before then return lo, before, time end
end

-- The oldest offset that a history keeps once `newest` is stored and all messages have `total` bytes, m.top + 1 where
-- it is none of the log; then the one that was looked at, bytes before it, its time. Looks at the log only where what
-- is known does not rule out that the floor moves by bytes or age.
local function trim(m, log, newest, total, now, messages, bytes, age)
  local floor = math.max(m.floor, newest + 1 - messages)
  if floor <= m.top and (total - m.before > bytes or m.oldest + age <= now) then
    local function fine(before, time) return total - before <= bytes and time + age > now end
    local from = floor == m.known and floor + 1 or floor
    local found, before, time = first(log, from, m.top, fine)
    if found then return found, found, before, time end
    floor = m.top + 1
  end
  if floor > m.top then return m.top + 1, m.top + 1, m.total, now end
  return floor, m.known, m.before, m.oldest
end

local function history(messages, bytes, age)
  messages, bytes, age = number(messages), number(bytes), number(age)
  if messages and bytes and age then return messages, bytes, math.min(age, LONGEST) end
end

local function send(mode, live, text)
  return redis.call(mode == 'S' and 'SPUBLISH' or 'PUBLISH', live, text)
end

-- `P:{p}:` of a key `P:{p}:<kind><channel>`; nil where it does not end so.
local function base_of(key, kind, channel)
  local at = #key - #kind - #channel
  if at > 0 and string.find(key, kind, at + 1, true) == at + 1
    and string.find(key, channel, at + 1 + #kind, true) == at + 1 + #kind then
    return string.sub(key, 1, at)
  end
end

local function channel_fault(channel)
  if #channel > 200 or not string.find(channel, '^[A-Za-z0-9_.:~@-]+$') or not string.find(channel, '[^.]') then
    return 'a channel has 1 to 200 of A-Z a-z 0-9 _ . : ~ @ - and is not of dots alone'
  end
end

local function event_fault(event)
  if #event > 64 or not string.find(event, '^[A-Za-z0-9_.-]+$') or event == 'open' or event == 'error'
    or string.sub(event, 1, 9) == 'tidegate.' then
    return 'an event has 1 to 64 of A-Z a-z 0-9 _ . -, is not open or error, and does not begin with tidegate.'
  end
end

-- What is wrong with a publish, if anything; else what its keys begin with.
local function check(keys, argv)
  if #keys < 4 or #keys > 5 then return 'publish takes 4 keys, or 5 with an idempotency key; see tidegate.lua' end
  if #argv < 9 or #argv > 12 then return 'publish takes 9 to 12 arguments; see tidegate.lua' end
  local channel, event = argv[1], argv[8]
  local fault = channel_fault(channel) or event ~= '' and event_fault(event)
  if fault then return fault end
  local base = base_of(keys[1], 'meta:', channel)
  if not base then return 'the first key does not end with meta:' .. channel end
  if base_of(keys[2], 'log:', channel) ~= base then return 'the second key is not ' .. base .. 'log:' .. channel end
  if keys[3] ~= base .. 'names' then return 'the third key is not ' .. base .. 'names' end
  if keys[4] ~= base .. 'state' then return 'the fourth key is not ' .. base .. 'state' end
  if not number(argv[2]) then return 'the database is not a number' end
  if argv[3] ~= 'P' and argv[3] ~= 'S' then return 'the third argument is neither P nor S' end
  if not KINDS[argv[7]] then return 'the kind is none of json, text, bytes' end
  if argv[12] and #argv[12] > 255 then return 'a trace parent has at most 255 bytes' end
  return nil, base
end

-- What was published with an idempotency key.
local function recall(key, digest)
  local text = redis.pcall('GET', key)
  if type(text) ~= 'string' then return nil end
  local fine, known = pcall(cmsgpack.unpack, text)
  if not fine or type(known) ~= 'table' or #known < 4 then return nil end
  if known[1] ~= digest then
    return redis.error_reply('TGKEYREUSED the idempotency key was used for another message')
  end
  return { known[2], known[3], known[4], 1, 0, 0 }
end

-- The counting of a channel that has none.
local function begin(meta, log, state, now, fence)
  local second = math.floor(now / 1000)
  local vouch = math.max(vouched(state, now, fence, true), second - DAY / 1000)
  if redis.call('EXISTS', log) == 1 then
    -- Its meta was lost. How long it was, and what else is lost, nobody knows.
    redis.call('DEL', log)
    vouch = second + 1
  end
  local time = redis.call('TIME')
  return { top = 0, total = 0, time = 0, deleted = 0, floor = 1, before = 0, oldest = 0, past = '', fence = fence,
    known = 1, began = math.max(second, vouch), vouch = vouch, epoch = epoch_of(meta, fence, time[1], time[2]) }
end

local function publish(keys, argv)
  local fault, base = check(keys, argv)
  if fault then return wrong(fault) end
  local channel, kind, event, payload, trace = argv[1], KINDS[argv[7]], argv[8], argv[9], argv[12] or ''
  local messages, bytes, age = history(argv[4], argv[5], argv[6])
  if not messages then return wrong('a limit of the history is not a whole number from 0') end

  local remember, digest = keys[5], argv[10] or ''
  if remember then
    local start = base .. 'idem:' .. channel .. '/'
    if string.sub(remember, 1, #start) ~= start then return wrong('the fifth key does not begin with ' .. start) end
    if digest == '' then digest = redis.sha1hex(kind .. ' ' .. event .. ' ' .. payload) end
    local known = recall(remember, digest)
    if known then return known end
  end

  local now = milliseconds()
  local fence = fence_at(now)
  local m = load(keys[1], fence) or begin(keys[1], keys[2], keys[4], now, fence)
  local log, offset, time, size = keys[2], m.top + 1, math.max(now, m.time), #payload + #event
  local function envelope(floor)
    return struct.pack(ENVELOPE, 1, 0, offset, time, floor, #m.epoch, m.epoch, kind, #event, event, #trace, trace)
      .. payload
  end

  local text
  if messages > 0 and age > 0 and size <= bytes then
    local was, id, s = m.floor, decimal(offset), decimal(m.total)
    m.floor, m.known, m.before, m.oldest = trim(m, log, offset, m.total + size, time, messages, bytes, age)
    text = envelope(m.floor)
    local added
    if offset % 16 == 0 or m.floor - was > 1 or m.floor > was and size > 1000 then
      -- By whole nodes of the stream, which is cheap; now and then by entries, should nodes have no bound.
      local how = offset % 128 == 0 and '=' or '~'
      added = redis.pcall('XADD', log, 'NOMKSTREAM', 'MINID', how, decimal(m.floor), id, 'm', text, 's', s)
    else
      added = redis.pcall('XADD', log, 'NOMKSTREAM', id, 'm', text, 's', s)
    end
    if type(added) == 'table' then
      if not string.find(added.err, '^WRONGTYPE') and not string.find(added.err, '^ERR') then return added end
      -- Not the log that this counting belongs to.
      redis.call('DEL', log)
      next_epoch(m, keys[1], fence .. ' ' .. decimal(time))
      added = false
    end
    if not added then
      m.floor, m.known, m.before, m.oldest = offset, offset, m.total, time
      text = envelope(offset)
      redis.call('XADD', log, id, 'm', text, 's', s)
    end
    redis.call('PEXPIREAT', log, decimal(time + age))
    if not added or offset % 64 == 0 then redis.call('ZADD', keys[3], 0, channel) end
  else
    if m.floor <= m.top then redis.call('DEL', log) end
    m.floor, m.known, m.before, m.oldest = offset + 1, offset + 1, m.total + size, time
    text = envelope(m.floor)
  end

  m.top, m.time, m.total = offset, time, m.total + size
  local saved = save(keys[1], m, 'PX', decimal(age + DAY))
  if saved.err then return saved end
  if remember then
    local life = math.max(number(argv[11]) or 300000, 1)
    redis.call('SET', remember, cmsgpack.pack({ digest, m.epoch, offset, time }), 'PX', decimal(life))
  end
  local receivers = send(argv[3], base .. 'live:' .. argv[2] .. ':' .. channel, text)
  return { m.epoch, offset, time, 0, m.floor, receivers }
end

-- Appends to `reply` the envelopes after an offset that fit on a page, at least one; whether more follow.
local function page(reply, m, log, after, messages, bytes)
  local at, count, last, start, held = after + 1, 0, decimal(m.top), nil, nil
  -- An entry's size is known by the next one; whether `held` is on the page, given the bytes before that.
  local function fits(before)
    if count == 0 then bytes = math.max(bytes, before - start) end
    if count >= messages or before - start > bytes then return false end
    count = count + 1
    reply[#reply + 1] = held
    return true
  end
  while at <= m.top do
    local ask = math.min(m.top - at + 1, 4)
    if start and ask == 4 then
      local each = (m.total - start) / (m.top - after) + 1
      ask = math.max(4, math.min(messages - count + 1, math.ceil(bytes / each), 512))
    end
    local found = redis.pcall('XRANGE', log, decimal(at), last, 'COUNT', decimal(ask))
    if not found[1] then break end
    for _, one in ipairs(found) do
      local fields = one[2]
      local sound = fields[1] == 'm' and fields[3] == 's'
      local before = sound and tonumber(fields[4]) or start or 0
      start = start or before
      if held and not fits(before) then return true end
      held = sound and fields[2] or ''
    end
    at = tonumber(string.match(found[#found][1], '^%d+')) + 1
  end
  return held ~= nil and not fits(m.total)
end

-- KEYS meta log state; ARGV messages, bytes, age, kind of since and its two values, messages and bytes of a page.
local function read(keys, argv)
  local messages, bytes, age = history(argv[1], argv[2], argv[3])
  local kind, page_messages, page_bytes = argv[4], number(argv[7]), number(argv[8])
  if #keys ~= 3 or not (messages and page_messages and page_bytes) then
    return wrong('read takes 3 keys and 8 arguments; see tidegate.lua')
  end
  local now, log = milliseconds(), keys[2]
  local second, fence = math.floor(now / 1000), fence_at(now)
  local m = load(keys[1], fence)
  if not m then
    local vouch = math.max(vouched(keys[3], now, fence, false), second - DAY / 1000)
    if redis.pcall('EXISTS', log) == 1 then vouch = second + 1 end
    return { '', 0, 1, 0, '', now, math.max(second, vouch), 0, vouch, 0, 0, 0 }
  end
  if m.changed then save(keys[1], m, 'KEEPTTL') end

  local floor = m.top + 1
  if m.floor < floor and redis.pcall('EXISTS', log) == 1 then
    floor = trim(m, log, m.top, m.total, now, messages, bytes, age)
  end
  local after, removed, since, one, two = floor - 1, 0, 0, argv[5], number(argv[6]) or 0
  if kind == 'latest' then
    after = m.top
  elseif kind == 'last' then
    after = math.max(after, m.top - (number(one) or 0))
  elseif kind == 'position' and one == m.epoch then
    after = two > m.top and m.top or math.max(after, two)
  elseif kind == 'position' then
    local ended = number(string.match(',' .. m.past, ',' .. one .. ':(%d+)'))
    if ended then after = math.max(after, math.min(two, ended)) end
  elseif kind == 'second' then
    local asked = math.min(two, second)
    if floor > 1 then
      local _, time = entry(log, floor)
      removed = math.floor((floor <= m.top and time or m.time) / 1000)
    end
    if asked > m.began and asked > removed then
      since = first(log, floor, m.top, function(_, time) return time >= asked * 1000 end) or m.top + 1
      after = since - 1
    end
  end
  local reply = { m.epoch, m.top, floor, m.deleted, m.past, now, math.max(second, m.vouch), m.began, m.vouch, removed,
    since, 0 }
  if page(reply, m, log, after, math.max(page_messages, 1), page_bytes) then reply[12] = 1 end
  return reply
end

-- KEYS state meta…; reply: the second, the one from which on a channel without meta was empty; epoch, top of each.
local function tops(keys)
  local now = milliseconds()
  local second, fence = math.floor(now / 1000), fence_at(now)
  local reply = { second, math.max((vouched(keys[1], now, fence, false)), second - DAY / 1000) }
  for i = 2, #keys do
    local m = load(keys[i], fence)
    if m and m.changed then save(keys[i], m, 'KEEPTTL') end
    reply[#reply + 1] = m and m.epoch or ''
    reply[#reply + 1] = m and m.top or 0
  end
  return reply
end

-- KEYS meta log names; ARGV channel, database, P or S; reply: whether anything was kept, epoch, top.
local function forget(keys, argv)
  local channel = argv[1] or ''
  local base = #keys == 3 and base_of(keys[1], 'meta:', channel)
  if #argv ~= 3 or not base or channel_fault(channel) then
    return wrong('forget takes 3 keys and 3 arguments; see tidegate.lua')
  end
  local now = milliseconds()
  local m = load(keys[1], fence_at(now))
  redis.call('ZREM', keys[3], channel)
  if not m then
    -- A log that lost its meta stays, empty: it tells the next publish that something was lost.
    redis.pcall('XTRIM', keys[2], 'MAXLEN', 0)
    return { 0, '', 0 }
  end
  local had = redis.call('DEL', keys[2])
  if had == 1 and m.floor <= m.top then
    m.deleted, m.floor, m.known, m.before, m.oldest = m.top, m.top + 1, m.top + 1, m.total, m.time
    m.changed = true
  else
    had = 0
  end
  if m.changed then save(keys[1], m, 'KEEPTTL') end
  if had == 1 then
    local text = struct.pack(ENVELOPE, 1, 1, m.top, math.max(now, m.time), m.top + 1, #m.epoch, m.epoch, 2, 0, '', 0, '')
    send(argv[3], base .. 'live:' .. argv[2] .. ':' .. channel, text)
  end
  return { had, m.epoch, m.top }
end

-- KEYS names; ARGV beginning of the keys of logs, min, max, limit, 1 to clean; reply: where to go on ('' at the end,
-- else a min), then names whose log exists. Looks at 2000 names at most, since Redis serves nobody meanwhile.
local function list(keys, argv)
  local limit = number(argv[4])
  if #keys ~= 1 or #argv ~= 5 or not limit then return wrong('list takes 1 key and 5 arguments; see tidegate.lua') end
  local found = redis.call('ZRANGEBYLEX', keys[1], argv[2], argv[3], 'LIMIT', 0, 2000)
  local reply, dead = { #found == 2000 and '(' .. found[2000] or '' }, {}
  for i, name in ipairs(found) do
    if #reply > limit then
      reply[1] = '(' .. found[i - 1]
      break
    end
    -- An error where the key's slot is on its way elsewhere: it may well live.
    local alive = redis.pcall('EXISTS', argv[1] .. name)
    if alive == 0 then
      dead[#dead + 1] = name
    else
      reply[#reply + 1] = name
    end
  end
  if dead[1] and argv[5] == '1' then redis.pcall('ZREM', keys[1], unpack(dead)) end
  return reply
end

-- KEYS state…; makes and renews them; reply: now, fence, and the second from which on each vouches.
local function open(keys)
  local now = milliseconds()
  local fence = fence_at(now)
  local reply = { now, fence }
  for _, key in ipairs(keys) do
    reply[#reply + 1] = vouched(key, now, fence, true)
  end
  return reply
end

-- KEYS state; ARGV a Redis channel, payload, P or S; sends "<now> <payload>"; reply: whether the state is stored, now,
-- the second that the position of an empty channel bears, fence, receivers.
local function probe(keys, argv)
  if #keys ~= 1 or #argv ~= 3 then return wrong('probe takes 1 key and 3 arguments; see tidegate.lua') end
  local now = milliseconds()
  local fence = fence_at(now)
  local born, stored = vouched(keys[1], now, fence, false)
  local receivers = send(argv[3], argv[1], decimal(now) .. ' ' .. argv[2])
  return { stored and 1 or 0, now, math.max(math.floor(now / 1000), born), fence, receivers }
end

-- KEYS subs…; ARGV node, lease in ms, the node's subscribers of each.
local function count(keys, argv)
  local now, node, lease = milliseconds(), argv[1], number(argv[2])
  if not lease or #argv ~= #keys + 2 then return wrong('count takes a node, a lease and as many counts as keys') end
  for i, key in ipairs(keys) do
    local subscribers = number(argv[i + 2])
    if not subscribers then return wrong('a count is not a whole number from 0') end
    if subscribers == 0 then
      redis.call('HDEL', key, node)
    else
      local new = redis.call('HSET', key, node, decimal(subscribers) .. ' ' .. decimal(now))
      if new == 1 then
        local all = redis.call('HGETALL', key)
        for at = 1, #all, 2 do
          local stamp = tonumber(string.match(all[at + 1], ' (%d+)$'))
          if not stamp or stamp + lease <= now then redis.call('HDEL', key, all[at]) end
        end
      end
      redis.call('PEXPIRE', key, decimal(math.max(lease, 1)))
    end
  end
  return #keys
end

-- KEYS subs; ARGV lease in ms, a node; reply: subscribers at the other nodes, age in ms of the oldest figure in it.
local function counted(keys, argv)
  local lease = number(argv[1])
  if #keys ~= 1 or #argv ~= 2 or not lease then return wrong('counted takes 1 key, a lease and a node') end
  local now, sum, oldest = milliseconds(), 0, 0
  local all = redis.call('HGETALL', keys[1])
  for at = 1, #all, 2 do
    local subscribers, stamp = string.match(all[at + 1], '^(%d+) (%d+)$')
    if stamp and all[at] ~= argv[2] and stamp + lease > now then
      sum = sum + subscribers
      oldest = math.max(oldest, now - stamp)
    end
  end
  return { sum, oldest }
end

-- KEYS P:format; ARGV partitions, format; reply: those that hold here, which are the given ones where none did.
local function format(keys, argv)
  local partitions, version = number(argv[1]), number(argv[2])
  if #keys ~= 1 or not (partitions and version) then return wrong('format takes 1 key and 2 numbers') end
  local text = redis.call('GET', keys[1])
  if not text then
    redis.call('SET', keys[1], decimal(partitions) .. ' ' .. decimal(version))
    return { partitions, version }
  end
  partitions, version = string.match(text, '^(%d+) (%d+)$')
  if not version then return redis.error_reply('TGFORMAT ' .. keys[1] .. ' is not "<partitions> <format>"') end
  return { tonumber(partitions), tonumber(version) }
end

local function version()
  return 1
end

if redis.register_function then
  local function add(name, callback, ...)
    redis.register_function{ function_name = 'tidegate_1_' .. name, callback = callback, flags = { ... } }
  end
  -- Where Redis takes no writes (NOREPLICAS, MISCONF) it refuses what may write as a whole, though reading stores only what
  -- the next one may as well find out for itself: so each has a form that must not.
  local function add_reading(name, callback)
    add(name, callback, 'allow-oom')
    add(name .. '_ro', callback, 'no-writes')
  end
  add('publish', publish)
  add_reading('read', read)
  add_reading('tops', tops)
  add_reading('list', list)
  add_reading('open', open)
  add_reading('format', format)
  add('forget', forget, 'allow-oom')
  add('probe', probe, 'allow-oom')
  add('count', count)
  add('counted', counted, 'no-writes')
  add('version', version, 'no-writes')
else
  local functions = { tidegate_1_publish = publish, tidegate_1_read = read, tidegate_1_tops = tops,
    tidegate_1_forget = forget, tidegate_1_list = list, tidegate_1_open = open, tidegate_1_probe = probe,
    tidegate_1_count = count, tidegate_1_counted = counted, tidegate_1_format = format,
    tidegate_1_version = version }
  local chosen = functions[table.remove(ARGV, 1)]
  if not chosen then return wrong('the first argument is no function of this script') end
  return chosen(KEYS, ARGV)
end
