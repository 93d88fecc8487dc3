//! JSON lists, read element by element: one that cannot be read leaves the others as they are.

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// An element of a list of `T`.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Element<T> {
    /// It is one.
    Good(T),
    /// It is JSON, and no `T`.
    Bad(Value),
}

/// Why a value is no `T`.
pub(crate) fn why_not<T: DeserializeOwned>(value: Value) -> String {
    match serde_json::from_value::<T>(value) {
        Ok(_) => "a key is written twice".to_owned(),
        Err(error) => error.to_string(),
    }
}

/// A value at a path of keys, as text for a message; empty: there is none.
pub(crate) fn text_at(value: &Value, path: &[&str]) -> String {
    match path.iter().try_fold(value, |value, key| value.get(key)) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

/// Lists of instances of which one element is changed, for the tests of every registry.
#[cfg(test)]
pub(crate) mod mutated {
    use serde_json::{Value, json};

    /// Every place within a value, itself included, as JSON pointers.
    fn places(value: &Value, at: &str, all: &mut Vec<String>) {
        all.push(at.to_owned());
        match value {
            Value::Object(members) => {
                for (key, member) in members {
                    places(member, &format!("{at}/{key}"), all);
                }
            }
            Value::Array(members) => {
                for (number, member) in members.iter().enumerate() {
                    places(member, &format!("{at}/{number}"), all);
                }
            }
            _ => {}
        }
    }

    /// Every value with one place of it changed or left out.
    pub(crate) fn all(element: &Value) -> Vec<Value> {
        let others = [
            Value::Null,
            json!(true),
            json!(-1),
            json!(0),
            json!(1.5),
            json!(70_000),
            json!(u64::MAX),
            json!(-1e30),
            json!(""),
            json!("x"),
            json!("\u{1b}[2J"),
            json!("y".repeat(100_000)),
            json!([]),
            json!([1]),
            json!({}),
            json!({"z": {"z": []}}),
        ];
        let mut found = Vec::new();
        places(element, "", &mut found);
        let mut all = Vec::new();
        for place in &found {
            for other in &others {
                let mut changed = element.clone();
                *changed.pointer_mut(place).unwrap() = other.clone();
                all.push(changed);
            }
            if let Some((parent, key)) = place.rsplit_once('/') {
                let mut changed = element.clone();
                if let Some(Value::Object(members)) = changed.pointer_mut(parent) {
                    members.remove(key);
                    all.push(changed);
                }
            }
        }
        all
    }
}
