//! Writes pickles of protocol 2, from plain values only, so that readers in restricted mode take them.

use serde_json::Value as Json;

use super::{CLASS, TENSOR, opcode};

/// A pickle in the making. Values are written in the order of the calls; nothing is shared, so there is no memo.
#[derive(Debug)]
pub struct PickleWriter {
    bytes: Vec<u8>,
}

impl Default for PickleWriter {
    fn default() -> Self {
        Self { bytes: vec![opcode::PROTO, 2] }
    }
}

impl PickleWriter {
    /// The finished pickle.
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.push(opcode::STOP);
        self.bytes
    }

    /// Any JSON value. An object that is nothing but a [`TENSOR`] or a [`CLASS`] becomes a call that makes one.
    pub fn json(&mut self, value: &Json) {
        match value {
            Json::Null => self.bytes.push(opcode::NONE),
            Json::Bool(value) => self.bool(*value),
            Json::Number(number) => match number.as_i64() {
                Some(value) => self.int(value),
                // Beyond 63 bits there are only floats: JSON numbers that large are not counts of anything.
                None => self.float(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => self.text(text),
            Json::Array(items) => self.list(items, Self::json),
            Json::Object(entries) if entries.len() == 1 && entries.contains_key(TENSOR) => {
                self.call("torch", "tensor", |arguments| arguments.json(&entries[TENSOR]));
            }
            Json::Object(entries) if entries.len() == 1 && entries.contains_key(CLASS) => {
                let class = entries[CLASS].as_str().unwrap_or_default();
                let (module, name) = class.rsplit_once('.').unwrap_or(("builtins", class));
                self.call(module, name, |_| {});
            }
            Json::Object(entries) => {
                self.open_dict();
                for (key, value) in entries {
                    self.text(key);
                    self.json(value);
                }
                self.close_dict();
            }
        }
    }

    /// Text.
    pub fn text(&mut self, text: &str) {
        self.bytes.push(opcode::BINUNICODE);
        let length = u32::try_from(text.len()).expect("text in a saved model stays below 4 GiB");
        self.bytes.extend(length.to_le_bytes());
        self.bytes.extend(text.as_bytes());
    }

    /// An integer.
    pub fn int(&mut self, value: i64) {
        match i32::try_from(value) {
            Ok(value) => {
                self.bytes.push(opcode::BININT);
                self.bytes.extend(value.to_le_bytes());
            }
            Err(_) => {
                self.bytes.extend([opcode::LONG1, 8]);
                self.bytes.extend(value.to_le_bytes());
            }
        }
    }

    /// A truth value.
    pub fn bool(&mut self, value: bool) {
        self.bytes.push(if value { opcode::NEWTRUE } else { opcode::NEWFALSE });
    }

    fn float(&mut self, value: f64) {
        self.bytes.push(opcode::BINFLOAT);
        self.bytes.extend(value.to_be_bytes());
    }

    /// A list; `write` writes one item.
    pub fn list<T>(&mut self, items: impl IntoIterator<Item = T>, write: impl Fn(&mut Self, T)) {
        self.bytes.extend([opcode::EMPTY_LIST, opcode::MARK]);
        for item in items {
            write(self, item);
        }
        self.bytes.push(opcode::APPENDS);
    }

    /// Begins a dict; keys and values follow in turn, then [`Self::close_dict`].
    pub fn open_dict(&mut self) {
        self.bytes.extend([opcode::EMPTY_DICT, opcode::MARK]);
    }

    /// Begins an ordered dict, as [`Self::open_dict`].
    pub fn open_ordered_dict(&mut self) {
        self.call("collections", "OrderedDict", |_| {});
        self.bytes.push(opcode::MARK);
    }

    /// Ends a dict of either kind.
    pub fn close_dict(&mut self) {
        self.bytes.push(opcode::SETITEMS);
    }

    /// A call; `arguments` writes them.
    pub fn call(&mut self, module: &str, name: &str, arguments: impl FnOnce(&mut Self)) {
        self.class(module, name);
        self.tuple(arguments);
        self.bytes.push(opcode::REDUCE);
    }

    /// A class or function by name.
    pub fn class(&mut self, module: &str, name: &str) {
        self.bytes.push(opcode::GLOBAL);
        self.bytes.extend(format!("{module}\n{name}\n").as_bytes());
    }

    /// A tuple; `items` writes them.
    pub fn tuple(&mut self, items: impl FnOnce(&mut Self)) {
        self.bytes.push(opcode::MARK);
        items(self);
        self.bytes.push(opcode::TUPLE);
    }

    /// A reference out of the pickle; `items` writes the tuple that says to what.
    pub fn persistent(&mut self, items: impl FnOnce(&mut Self)) {
        self.tuple(items);
        self.bytes.push(opcode::BINPERSID);
    }
}
