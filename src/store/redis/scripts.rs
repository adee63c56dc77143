//! What must happen in one atomic step on the server, or in one trip, and has no command of its own.

use std::sync::LazyLock;

use redis::{Script, ScriptInvocation};

/// `KEYS[1]` a hash; `ARGV[1]` the largest field in octets, then the fields. An array of values in their order, or nil
/// where there is no such key. A field that is too large is an error and is not sent.
pub(super) static RECORD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('EXISTS', KEYS[1]) == 0 then return nil end
        for i = 2, #ARGV do
            if redis.call('HSTRLEN', KEYS[1], ARGV[i]) > tonumber(ARGV[1]) then
                return redis.error_reply('TOOLARGE field')
            end
        end
        return redis.call('HMGET', KEYS[1], unpack(ARGV, 2))
        ",
    )
});

/// `KEYS[1]` a hash; `ARGV`: most fields, most octets of all together. Fields and values in turn, or nil where there is no
/// such key. One that is larger is an error and is not sent.
pub(super) static WHOLE_RECORD: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local fields = redis.call('HLEN', KEYS[1])
        if fields == 0 then return nil end
        if fields > tonumber(ARGV[1]) then return redis.error_reply('TOOLARGE record') end
        local all, octets = redis.call('HGETALL', KEYS[1]), 0
        for _, text in ipairs(all) do octets = octets + #text end
        if octets > tonumber(ARGV[2]) then return redis.error_reply('TOOLARGE record') end
        return all
        ",
    )
});

/// `KEYS[1]` a hash; `ARGV`: how many fields must be as they were, how many are set, then both with their values, then fields to
/// remove. Answers 1 where it was so.
static AMEND: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
        local held = 2 + 2 * tonumber(ARGV[1])
        local set = held + 2 * tonumber(ARGV[2])
        for i = 3, held, 2 do
            if redis.call('HGET', KEYS[1], ARGV[i]) ~= ARGV[i + 1] then return 0 end
        end
        if set > held then redis.call('HSET', KEYS[1], unpack(ARGV, held + 1, set)) end
        if #ARGV > set then redis.call('HDEL', KEYS[1], unpack(ARGV, set + 1)) end
        return 1
        ",
    )
});

pub(super) fn amending(
    key: &str,
    held: &[(&str, &str)],
    set: &[(&str, &str)],
    remove: &[&str],
) -> ScriptInvocation<'static> {
    let mut script = AMEND.prepare_invoke();
    script.key(key).arg(held.len()).arg(set.len());
    for (field, value) in held.iter().chain(set) {
        script.arg(*field).arg(*value);
    }
    for field in remove {
        script.arg(*field);
    }
    script
}

/// `KEYS[1]` a hash; `ARGV`: a field, the field that counts, a value, the hash's life in milliseconds (0: as it is).
pub(super) static ENLIST: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 0 then
            local number = redis.call('HINCRBY', KEYS[1], ARGV[2], 1)
            redis.call('HSET', KEYS[1], ARGV[1], ARGV[3] .. ' ' .. string.format('%.0f', number))
        end
        if tonumber(ARGV[4]) > 0 then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
        return 1
        ",
    )
});

/// The steps of `gcra::take`, with the server's clock. `KEYS[1]` the limiter; `ARGV`: interval in microseconds, limit,
/// count. Answers whether, remaining, and microseconds until one more and until whole.
pub(super) static TAKE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local interval, limit, count = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
        local time = redis.call('TIME')
        local now = tonumber(time[1]) * 1000000 + tonumber(time[2])
        local window = interval * limit
        local arrival = tonumber(redis.call('GET', KEYS[1]) or now) or now
        arrival = math.min(math.max(arrival, now), now + window)
        local following = arrival + interval * count
        local allowed = following <= now + window
        local spent = allowed and following or arrival
        if allowed and count > 0 then
            redis.call('SET', KEYS[1], string.format('%.0f', following),
                'PX', math.max(1, math.ceil((following - now) / 1000)))
        end
        local wait = allowed and 0 or following - (now + window)
        return { allowed and 1 or 0, math.floor((now + window - spent) / interval), wait, spent - now }
        ",
    )
});

/// `KEYS[1]` a value; `ARGV`: what it has to be, and the new one, if any, with its life in milliseconds, if it is not the old
/// one's. Answers 1 where it was so.
pub(super) static EXCHANGE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local same = redis.call('GETRANGE', KEYS[1], 0, #ARGV[1]) == ARGV[1]
        if not same or redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
        if ARGV[3] then
            redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
        elseif ARGV[2] then
            redis.call('SET', KEYS[1], ARGV[2], 'KEEPTTL')
        else
            redis.call('DEL', KEYS[1])
        end
        return 1
        ",
    )
});

/// `KEYS[1]` a value that begins with a number; `ARGV`: the new one, its life in milliseconds (0: none). Answers 1 where it was set.
/// A value that is too large begins with no number of ours: only its beginning is looked at.
pub(super) static RAISE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local left = redis.call('PTTL', KEYS[1])
        local life = tonumber(ARGV[2])
        if left ~= -2 then
            local held = string.match(redis.call('GETRANGE', KEYS[1], 0, 64), '^%s*(%d+)')
            if not held or tonumber(held) > tonumber(string.match(ARGV[1], '^%d+')) then return 0 end
            if left == -1 then life = 0 elseif life > 0 then life = math.max(life, left) end
        end
        if life == 0 then
            redis.call('SET', KEYS[1], ARGV[1])
        else
            redis.call('SET', KEYS[1], ARGV[1], 'PX', string.format('%.0f', life))
        end
        return 1
        ",
    )
});

/// `KEYS[1]` a value; `ARGV`: the new one, its life in milliseconds (0: none), the longest number in octets. Whichever says
/// more stands, for the longer of both lives. What is a number is so by the grammar of Rust's `f64`, which knows neither
/// hexadecimal nor, here, what is not finite. Answers 1 where the new one stands, and what `PTTL` says then.
pub(super) static WIDEN: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        r"
        local function says(value)
            local number = #value <= tonumber(ARGV[3])
                and string.match(value, '^%s*([%+%-]?[%d%.]+[eE]?[%+%-]?%d*)%s*$')
            number = number and tonumber(number)
            if number and number >= 0 and number < math.huge then return number end
            return math.huge
        end
        local left, life, set = redis.call('PTTL', KEYS[1]), tonumber(ARGV[2]), 1
        if left ~= -2 then
            local held = redis.call('GETRANGE', KEYS[1], 0, ARGV[3])
            if says(held) > says(ARGV[1]) then set = 0 end
            if left == -1 then life = 0 elseif life > 0 then life = math.max(life, left) end
        end
        if set == 0 then
            if life == 0 then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], string.format('%.0f', life)) end
        elseif life == 0 then
            redis.call('SET', KEYS[1], ARGV[1])
        else
            redis.call('SET', KEYS[1], ARGV[1], 'PX', string.format('%.0f', life))
        end
        return { set, redis.call('PTTL', KEYS[1]) }
        ",
    )
});
