//! `name=value&name=value`, percent-encoded as RFC 3986 has it.
//!
//! Strict, because what is decoded here names the user who loses a session. A `+` is refused: to some it is a plus
//! sign, to others a space, and `+49` and ` 49` may be two users.

use std::fmt::Write;

/// More parameters than any operation has.
const PARAMETERS_MAX: usize = 32;

/// The parameters of one request. What is not taken is not known.
#[derive(Debug)]
pub(super) struct Query {
    parameters: Vec<(String, String)>,
    /// Names that were asked for.
    taken: Vec<String>,
}

impl Query {
    /// Reads what stands behind the `?`; empty is none.
    pub(super) fn parse(text: &str) -> Result<Query, String> {
        let mut parameters: Vec<(String, String)> = Vec::new();
        for part in text.split('&').filter(|part| !part.is_empty()) {
            let (name, value) =
                part.split_once('=').ok_or_else(|| format!("`{part}` has no value; write name=value"))?;
            let (name, value) = (decode(name)?, decode(value)?);
            if parameters.len() == PARAMETERS_MAX {
                return Err(format!("more than {PARAMETERS_MAX} parameters"));
            }
            parameters.push((name, value));
        }
        Ok(Query { parameters, taken: Vec::new() })
    }

    /// Takes one out; that it stands there twice is told at the end.
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        let value = self.take_another(name)?;
        self.taken.push(name.to_owned());
        Some(value)
    }

    /// Takes the next of those that may stand there several times.
    pub(super) fn take_another(&mut self, name: &str) -> Option<String> {
        let at = self.parameters.iter().position(|(other, _)| other == name)?;
        Some(self.parameters.remove(at).1)
    }

    /// Nothing is left that nobody has asked for.
    pub(super) fn finish(self, known: &str) -> Result<(), String> {
        match self.parameters.first() {
            None => Ok(()),
            Some((name, _)) if self.taken.contains(name) => {
                Err(format!("`{name}` stands there twice; leave one out"))
            }
            Some((name, _)) => Err(format!("`{name}` is not known here; write {known}")),
        }
    }
}

/// The bytes that a text stands for; they must be UTF-8.
fn decode(text: &str) -> Result<String, String> {
    let wrong = |what: &str| Err(format!("`{text}` {what}"));
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => match (rest.next().and_then(digit), rest.next().and_then(digit)) {
                (Some(high), Some(low)) => bytes.push(high << 4 | low),
                _ => return wrong("has a % without two hexadecimal digits behind it; % itself is %25"),
            },
            b'+' => return wrong("has a +; write %2B for a plus sign, %20 for a space"),
            byte => bytes.push(byte),
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) => Ok(text),
        Err(_) => wrong("is not UTF-8"),
    }
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// A value as it may stand in a query.
pub fn encode(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        // RFC 3986, section 2.3: these are never encoded.
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            // Writing to a text does not fail.
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(value: String) {
            let encoded = encode(&value);
            prop_assert!(encoded.bytes().all(|byte| byte.is_ascii_graphic() && !b"&=#?+".contains(&byte)));
            prop_assert_eq!(decode(&encoded), Ok(value));
        }

        #[test]
        fn nothing_panics(text: String) {
            if let Ok(query) = Query::parse(&text) {
                let _ = query.finish("nothing");
            }
        }
    }

    #[test]
    fn values_are_decoded_once_and_strictly() {
        assert_eq!(decode("a%20%2b%2B%25%e4%bd%A0"), Ok("a ++%你".to_owned()));
        assert_eq!(decode("%2541"), Ok("%41".to_owned()));
        assert!(decode("+49").unwrap_err().contains("%2B for a plus sign"));
        for broken in ["%", "%4", "%4g", "%-1", "%%41", "a%"] {
            assert!(decode(broken).unwrap_err().contains("two hexadecimal digits"), "{broken}");
        }
        assert!(decode("%ff").unwrap_err().contains("UTF-8"));
        assert!(decode("%c0%af").unwrap_err().contains("UTF-8"), "an overlong form");
    }

    #[test]
    fn parameters_are_taken_and_none_is_left() {
        let mut query = Query::parse("user=al%26ice&&message=a=b").unwrap();
        assert_eq!(query.take("message").as_deref(), Some("a=b"));
        assert_eq!(query.take("user").as_deref(), Some("al&ice"));
        assert_eq!(query.take("user"), None);
        assert_eq!(query.finish("nothing"), Ok(()));
        assert!(Query::parse("").unwrap().finish("nothing").is_ok());
        let left = Query::parse("usr=alice").unwrap().finish("user=U").unwrap_err();
        assert_eq!(left, "`usr` is not known here; write user=U");
        let mut twice = Query::parse("user=a&%75ser=b").unwrap();
        assert_eq!(twice.take("user").as_deref(), Some("a"));
        assert!(twice.finish("user=U").unwrap_err().contains("twice"));
        let mut several = Query::parse("role=a&x=1&role=b").unwrap();
        assert_eq!(several.take_another("role").as_deref(), Some("a"));
        assert_eq!(several.take_another("role").as_deref(), Some("b"));
        assert_eq!(several.take_another("role"), None);
        assert!(Query::parse("user").unwrap_err().contains("name=value"));
        assert!(Query::parse(&"a=&".repeat(33)).unwrap_err().contains("more than 32"));
    }
}
