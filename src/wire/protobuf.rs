//! Walking protobuf without copying: the fields of a message, one by one, as slices of the bytes received.
//!
//! As strict as prost where a message is broken (truncated, overlong varint, wrong wire type), as lenient where it is
//! merely unknown (other fields are skipped).

/// The bytes are not a protobuf message of the expected shape.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed protobuf message")]
pub struct Malformed;

/// One field's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Bytes(&'a [u8]),
    /// A number or a group: nothing that is read here has one.
    Skipped,
}

impl<'a> Value<'a> {
    pub(super) fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Skipped => Err(Malformed),
        }
    }
}

/// The fields of `message` in the order of the wire: calls `each` with number and content.
pub(super) fn walk<'a>(
    message: &'a [u8],
    mut each: impl FnMut(u32, Value<'a>) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    let mut rest = message;
    while !rest.is_empty() {
        // Nearly every field: octets, fewer than 128 of them.
        if let [key @ 0x08..0x80, length @ 0..0x80, after @ ..] = rest
            && key & 7 == 2
            && let Some((content, after)) = after.split_at_checked(usize::from(*length))
        {
            rest = after;
            each(u32::from(key >> 3), Value::Bytes(content))?;
            continue;
        }
        let (number, wire_type) = tag(&mut rest)?;
        each(number, value(&mut rest, number, wire_type, 0)?)?;
    }
    Ok(())
}

/// Groups may nest; nothing legitimate nests them this deep.
const MAX_DEPTH: usize = 100;

#[inline]
fn tag(rest: &mut &[u8]) -> Result<(u32, u8), Malformed> {
    let tag = u32::try_from(varint(rest)?).map_err(|_| Malformed)?;
    let number = tag >> 3;
    if number == 0 {
        return Err(Malformed);
    }
    Ok((number, (tag & 7) as u8))
}

fn value<'a>(rest: &mut &'a [u8], number: u32, wire_type: u8, depth: usize) -> Result<Value<'a>, Malformed> {
    match wire_type {
        0 => varint(rest).map(|_| Value::Skipped),
        1 => take(rest, 8).map(|_| Value::Skipped),
        2 => {
            let length = usize::try_from(varint(rest)?).map_err(|_| Malformed)?;
            Ok(Value::Bytes(take(rest, length)?))
        }
        3 => skip_group(rest, number, depth).map(|()| Value::Skipped),
        5 => take(rest, 4).map(|_| Value::Skipped),
        _ => Err(Malformed),
    }
}

fn skip_group(rest: &mut &[u8], number: u32, depth: usize) -> Result<(), Malformed> {
    if depth >= MAX_DEPTH {
        return Err(Malformed);
    }
    loop {
        let (inner, wire_type) = tag(rest)?;
        if wire_type == 4 {
            return if inner == number { Ok(()) } else { Err(Malformed) };
        }
        value(rest, inner, wire_type, depth + 1)?;
    }
}

#[inline]
fn take<'a>(rest: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, after) = rest.split_at_checked(length).ok_or(Malformed)?;
    *rest = after;
    Ok(taken)
}

#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    match rest.split_first() {
        // Nearly every key and length.
        Some((&octet, after)) if octet < 0x80 => {
            *rest = after;
            Ok(u64::from(octet))
        }
        _ => long_varint(rest),
    }
}

fn long_varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut number = 0;
    for (i, &octet) in rest.iter().enumerate().take(10) {
        if i == 9 && octet > 1 {
            return Err(Malformed);
        }
        number |= u64::from(octet & 0x7f) << (7 * i);
        if octet < 0x80 {
            *rest = &rest[i + 1..];
            return Ok(number);
        }
    }
    Err(Malformed)
}
