//! Single values of a plan. Each reader says what it wanted and what it found.

use core::str::FromStr;
use core::time::Duration;

use super::MAX_WAIT;
use super::tree::Tree;
use crate::UnknownWord;
use crate::pointer::Scalar;

/// A number with a unit: "200ms", "30s", "10m", "2h"; not longer than a plan may wait.
pub(super) fn duration(tree: &Tree) -> Result<Duration, String> {
    let Tree::Text(text) = tree else { return Err(wanted(DURATION, tree)) };
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits).unwrap_or_default();
    let millis: u64 = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wanted(DURATION, tree)),
    };
    if number.is_empty() {
        return Err(wanted(DURATION, tree));
    }
    let millis = number.parse::<u64>().ok().and_then(|number| number.checked_mul(millis));
    millis
        .map(Duration::from_millis)
        .filter(|time| *time <= MAX_WAIT)
        .ok_or_else(|| wanted("a duration of at most 168h", tree))
}

const DURATION: &str = "a duration with its unit (ms, s, m, h), as \"30s\"";

/// A duration that is not zero.
pub(super) fn positive_duration(tree: &Tree) -> Result<Duration, String> {
    match duration(tree)? {
        Duration::ZERO => Err(wanted("a duration longer than zero", tree)),
        duration => Ok(duration),
    }
}

/// A whole number from `least` to `most`.
pub(super) fn count(least: u64, most: u64) -> impl Fn(&Tree) -> Result<u64, String> {
    move |tree| {
        let number = match tree {
            Tree::Integer(number) => u64::try_from(*number).ok(),
            _ => None,
        };
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(|| wanted(&format!("a whole number from {least} to {most}"), tree))
    }
}

/// The same where 32 bits are enough.
pub(super) fn small_count(least: u64, most: u64) -> impl Fn(&Tree) -> Result<u32, String> {
    let read = count(least, most.min(u64::from(u32::MAX)));
    move |tree| read(tree).map(|number| u32::try_from(number).unwrap_or(u32::MAX))
}

/// A text of 1 to `most` bytes.
pub(super) fn text(most: usize) -> impl Fn(&Tree) -> Result<String, String> {
    move |tree| match tree {
        Tree::Text(text) if (1..=most).contains(&text.len()) => Ok(text.clone()),
        Tree::Text(text) => Err(format!("wanted a text of 1 to {most} bytes, found one of {}", text.len())),
        _ => Err(wanted(&format!("a text of 1 to {most} bytes"), tree)),
    }
}

/// A text of one line, as it goes into a log or a name: 1 to `most` bytes, none of them a control character.
pub(super) fn line(most: usize) -> impl Fn(&Tree) -> Result<String, String> {
    let read = text(most);
    move |tree| match read(tree)? {
        text if text.chars().any(char::is_control) => Err(wanted("a text without control characters", tree)),
        text => Ok(text),
    }
}

/// Bytes as pairs of hex digits, spaces between allowed.
pub(super) fn hex(most: usize) -> impl Fn(&Tree) -> Result<Vec<u8>, String> {
    move |tree| {
        let wanted = || wanted(&format!("1 to {most} bytes in hex, as \"16 03 01\""), tree);
        let Tree::Text(text) = tree else { return Err(wanted()) };
        let digits: Vec<u8> = text.bytes().filter(|byte| *byte != b' ').collect();
        if digits.is_empty() || !digits.len().is_multiple_of(2) || digits.len() / 2 > most {
            return Err(wanted());
        }
        let pair = |pair: &[u8]| {
            let digits = core::str::from_utf8(pair).ok()?;
            let plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            if plain { u8::from_str_radix(digits, 16).ok() } else { None }
        };
        digits.chunks(2).map(pair).collect::<Option<Vec<u8>>>().ok_or_else(wanted)
    }
}

/// One of the words of an enumeration.
pub(super) fn word<T: FromStr<Err = UnknownWord>>(tree: &Tree) -> Result<T, String> {
    match tree {
        Tree::Text(text) => text
            .parse()
            .map_err(|unknown: UnknownWord| wanted(&format!("one of {}", unknown.known.join(", ")), tree)),
        _ => Err(wanted("a word", tree)),
    }
}

/// `true` or `false`.
pub(super) fn flag(tree: &Tree) -> Result<bool, String> {
    match tree {
        Tree::Flag(flag) => Ok(*flag),
        _ => Err(wanted("true or false", tree)),
    }
}

/// A number.
#[expect(clippy::cast_precision_loss, reason = "numbers compare as 64-bit floating point")]
pub(super) fn number(tree: &Tree) -> Result<f64, String> {
    match tree {
        Tree::Integer(number) => Ok(*number as f64),
        Tree::Number(number) if number.is_finite() => Ok(*number),
        _ => Err(wanted("a number", tree)),
    }
}

/// Something that a value of a JSON document can be compared with; texts of at most `most` bytes.
pub(super) fn scalar(most: usize) -> impl Fn(&Tree) -> Result<Scalar, String> {
    move |tree| match tree {
        Tree::Null => Ok(Scalar::Null),
        Tree::Flag(flag) => Ok(Scalar::Flag(*flag)),
        Tree::Text(text) if text.len() <= most => Ok(Scalar::Text(text.clone())),
        _ => number(tree).map(Scalar::Number).map_err(|_| {
            wanted(&format!("a text of at most {most} bytes, a number, true, false or null"), tree)
        }),
    }
}

/// A field name (RFC 9110 5.1: a token).
pub(super) fn is_field_name(text: &str) -> bool {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_token)
}

/// What was wanted, and what stood there.
pub(super) fn wanted(what: &str, found: &Tree) -> String {
    format!("wanted {what}, found {}", found.shown())
}
