//! From protobuf's text format to bytes, by the schema and without prost: a second opinion on every vector.
//!
//! The fields are written in the order in which they stand. A number in a name's place stands for a field that the
//! schema does not have.

use super::schema::Schema;

enum Token {
    Word(String),
    Text(Vec<u8>),
    Mark(char),
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text.chars().peekable();
    while let Some(next) = rest.next() {
        match next {
            '"' => {
                let mut bytes = Vec::new();
                while let Some(next) = rest.next_if(|next| *next != '"') {
                    if next != '\\' {
                        bytes.extend(next.to_string().bytes());
                        continue;
                    }
                    assert_eq!(rest.next(), Some('x'), "only \\xNN is an escape here");
                    let digits: String = rest.by_ref().take(2).collect();
                    bytes.push(u8::from_str_radix(&digits, 16).unwrap());
                }
                assert_eq!(rest.next(), Some('"'));
                tokens.push(Token::Text(bytes));
            }
            ':' | '{' | '}' | '[' | ']' | ',' => tokens.push(Token::Mark(next)),
            _ if next.is_whitespace() => {}
            _ => {
                let mut word = next.to_string();
                while let Some(next) = rest.next_if(|next| next.is_alphanumeric() || *next == '_') {
                    word.push(next);
                }
                tokens.push(Token::Word(word));
            }
        }
    }
    tokens
}

/// The encoded message that the text describes.
pub(crate) fn encode(schema: &Schema, message: &str, text: &str) -> Vec<u8> {
    let tokens = tokens(text);
    let mut reader = Reader { schema, rest: tokens.iter() };
    reader.message(Some(message))
}

struct Reader<'a> {
    schema: &'a Schema,
    rest: std::slice::Iter<'a, Token>,
}

impl Reader<'_> {
    /// Reads fields up to the closing brace, or the end.
    fn message(&mut self, message: Option<&str>) -> Vec<u8> {
        let mut out = Vec::new();
        while let Some(token) = self.rest.next() {
            let name = match token {
                Token::Word(name) => name,
                Token::Mark('}') => break,
                _ => panic!("a field's name was expected"),
            };
            let (number, kind) = match (name.parse::<u32>(), message) {
                (Ok(number), _) => (number, None),
                (Err(_), Some(message)) => {
                    let field = self.schema.field(message, name);
                    (field.number, Some(field.kind.as_str()))
                }
                (Err(_), None) => panic!("{name} in a message that is not known"),
            };
            match self.rest.next() {
                Some(Token::Mark('{')) => {
                    let body = self.message(kind);
                    put_bytes(&mut out, number, &body);
                }
                Some(Token::Mark(':')) => self.value(&mut out, number, kind),
                _ => panic!("{name}: a colon or a brace was expected"),
            }
        }
        out
    }

    fn value(&mut self, out: &mut Vec<u8>, number: u32, kind: Option<&str>) {
        match self.rest.next() {
            Some(Token::Text(bytes)) => {
                assert!(matches!(kind, None | Some("string" | "bytes")), "field {number} is no text");
                put_bytes(out, number, bytes);
            }
            Some(Token::Word(word)) => {
                assert!(!matches!(kind, Some("string" | "bytes")), "field {number} is a text");
                put_varint(out, u64::from(number) << 3);
                put_varint(out, self.number(word));
            }
            Some(Token::Mark('[')) => {
                let mut packed = Vec::new();
                for token in self.rest.by_ref() {
                    match token {
                        Token::Word(word) => {
                            let value = number_of(self.schema, word);
                            put_varint(&mut packed, value);
                        }
                        Token::Mark(',') => {}
                        Token::Mark(']') => break,
                        _ => panic!("field {number}: a number was expected"),
                    }
                }
                put_bytes(out, number, &packed);
            }
            _ => panic!("field {number}: a value was expected"),
        }
    }

    fn number(&self, word: &str) -> u64 {
        number_of(self.schema, word)
    }
}

fn number_of(schema: &Schema, word: &str) -> u64 {
    match word {
        "true" => 1,
        "false" => 0,
        _ => match word.parse() {
            Ok(number) => number,
            Err(_) => u64::try_from(schema.values[word]).unwrap(),
        },
    }
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_varint(out, u64::from(number) << 3 | 2);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}
