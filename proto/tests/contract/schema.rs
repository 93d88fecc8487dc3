//! The `.proto` files, read line by line: as much of them as the tests need, and without prost.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::collections::HashMap;

/// One field of a message.
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) number: u32,
    /// A scalar type, or the name of a message or an enum.
    pub(crate) kind: String,
    /// Within a oneof.
    pub(crate) is_choice: bool,
    pub(crate) is_repeated: bool,
}

/// Every message and every enum value of the contract.
#[derive(Default)]
pub(crate) struct Schema {
    pub(crate) messages: HashMap<String, Vec<Field>>,
    /// By the value's name; names are unique over all enums.
    pub(crate) values: HashMap<String, i32>,
}

enum Block {
    Message(String),
    Enum,
    Choice,
}

impl Schema {
    /// The schema of `proto/proto/*.proto`.
    pub(crate) fn read() -> Schema {
        let mut schema = Schema::default();
        for text in [
            include_str!("../../proto/common.proto"),
            include_str!("../../proto/client.proto"),
            include_str!("../../proto/service.proto"),
        ] {
            schema.file(text);
        }
        schema
    }

    fn file(&mut self, text: &str) {
        let mut blocks = Vec::new();
        for line in text.lines() {
            let line = line.split("//").next().unwrap_or_default().trim();
            let words: Vec<&str> = line.split_whitespace().collect();
            match words.as_slice() {
                [] | ["syntax" | "package" | "import" | "reserved", ..] => {}
                ["message", name, rest @ ..] => {
                    self.messages.entry((*name).trim_end_matches("{}").to_owned()).or_default();
                    if rest == ["{"] {
                        blocks.push(Block::Message((*name).to_owned()));
                    }
                }
                ["enum", _, "{"] => blocks.push(Block::Enum),
                ["oneof", _, "{"] => blocks.push(Block::Choice),
                ["}"] => {
                    blocks.pop();
                }
                [name, "=", number] => {
                    let number = number.trim_end_matches(';').parse().unwrap();
                    assert!(self.values.insert((*name).to_owned(), number).is_none(), "{name} stands twice");
                }
                [kinds @ .., name, "=", number] => {
                    let is_choice = matches!(blocks.last(), Some(Block::Choice));
                    let field = Field {
                        name: (*name).to_owned(),
                        number: number.trim_end_matches(';').parse().unwrap(),
                        kind: (*kinds.last().unwrap()).to_owned(),
                        is_choice,
                        is_repeated: kinds[0] == "repeated",
                    };
                    self.owner(&blocks).push(field);
                }
                _ => panic!("a line that is not understood: {line}"),
            }
        }
        assert!(blocks.is_empty());
    }

    fn owner(&mut self, blocks: &[Block]) -> &mut Vec<Field> {
        let name = blocks.iter().rev().find_map(|block| match block {
            Block::Message(name) => Some(name),
            Block::Enum | Block::Choice => None,
        });
        self.messages.get_mut(name.unwrap()).unwrap()
    }

    /// A field of a message by its name.
    pub(crate) fn field(&self, message: &str, name: &str) -> &Field {
        let fields = self.messages.get(message).unwrap_or_else(|| panic!("no message {message}"));
        fields.iter().find(|field| field.name == name).unwrap_or_else(|| panic!("no field {message}.{name}"))
    }

    /// The members of a frame: number and message.
    pub(crate) fn members(&self, frame: &str) -> Vec<(u32, String)> {
        let fields = self.messages[frame].iter().filter(|field| field.is_choice);
        fields.map(|field| (field.number, field.kind.clone())).collect()
    }
}
