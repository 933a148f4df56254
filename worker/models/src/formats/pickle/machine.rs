//! The stack machine: opcodes in, a graph of objects out. It calls nothing.

use std::collections::HashMap;

use archipelago_common::limits;

use super::{
    Fault, Pickle, classes,
    graph::{self, CallNode, Id, Node},
    opcode,
};

/// Parses a pickle of protocol 2 to 5.
///
/// # Errors  [`Fault`] with the offset; bytes after the value are ignored, as Python does
pub fn parse(bytes: &[u8]) -> Result<Pickle, Fault> {
    Ok(parse_first(bytes)?.0)
}

/// Parses the first of several pickles that follow each other; the bytes it takes.
///
/// # Errors  as [`parse`]
pub fn parse_first(bytes: &[u8]) -> Result<(Pickle, usize), Fault> {
    if bytes.len() > limits::PICKLE_BYTES {
        return Err(Fault::TooLarge { limit: limits::PICKLE_BYTES, unit: "bytes" });
    }
    let mut machine = Machine {
        bytes,
        at: 0,
        opcode_at: 0,
        nodes: vec![],
        stack: vec![],
        marks: vec![],
        memo: HashMap::new(),
        n_held: 0,
    };
    loop {
        if let Some(root) = machine.step()? {
            return Ok((Pickle { nodes: machine.nodes, root }, machine.at));
        }
    }
}

struct Machine<'a> {
    bytes: &'a [u8],
    at: usize,
    /// Where the current opcode stands, for messages.
    opcode_at: usize,
    nodes: Vec<Node>,
    stack: Vec<Id>,
    /// Stack heights at the open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
    /// References that objects hold to others. Each is a byte or two of the pickle and eight in memory.
    n_held: usize,
}

impl<'a> Machine<'a> {
    /// Runs one opcode; returns the value at the end.
    fn step(&mut self) -> Result<Option<Id>, Fault> {
        self.opcode_at = self.at;
        let opcode = self.u8()?;
        match opcode {
            opcode::STOP => return self.pop().map(Some),
            opcode::PROTO => self.protocol()?,
            opcode::FRAME => drop(self.take(8)?),

            opcode::NONE => self.push(Node::None)?,
            opcode::NEWTRUE => self.push(Node::Bool(true))?,
            opcode::NEWFALSE => self.push(Node::Bool(false))?,
            opcode::BININT => self.signed(4)?,
            opcode::BININT1 => self.unsigned(1)?,
            opcode::BININT2 => self.unsigned(2)?,
            opcode::LONG1 => self.long()?,
            opcode::BINFLOAT => self.float()?,

            opcode::SHORT_BINUNICODE => self.text(1)?,
            opcode::BINUNICODE => self.text(4)?,
            opcode::BINUNICODE8 => self.text(8)?,
            opcode::SHORT_BINBYTES => self.raw(1)?,
            opcode::BINBYTES => self.raw(4)?,
            opcode::BINBYTES8 | opcode::BYTEARRAY8 => self.raw(8)?,

            opcode::EMPTY_LIST => self.push(Node::List(vec![]))?,
            opcode::EMPTY_TUPLE => self.push(Node::Tuple(vec![]))?,
            opcode::EMPTY_DICT => self.push(Node::Dict(vec![]))?,
            opcode::EMPTY_SET => self.push(Node::Set(vec![]))?,
            opcode::MARK => self.mark()?,
            opcode::TUPLE => self.collect_marked(Node::Tuple)?,
            opcode::FROZENSET => self.collect_marked(Node::Set)?,
            opcode::TUPLE1 => self.tuple(1)?,
            opcode::TUPLE2 => self.tuple(2)?,
            opcode::TUPLE3 => self.tuple(3)?,
            opcode::APPEND => self.append()?,
            opcode::APPENDS | opcode::ADDITEMS => self.append_marked()?,
            opcode::SETITEM => self.set_item()?,
            opcode::SETITEMS => self.set_marked_items()?,

            opcode::GLOBAL => self.global()?,
            opcode::STACK_GLOBAL => self.stack_global()?,
            opcode::REDUCE | opcode::NEWOBJ => self.call()?,
            opcode::BUILD => self.build()?,
            opcode::BINPERSID => self.persistent()?,

            opcode::BINPUT => self.put(1)?,
            opcode::LONG_BINPUT => self.put(4)?,
            opcode::MEMOIZE => self.memoize()?,
            opcode::BINGET => self.get(1)?,
            opcode::LONG_BINGET => self.get(4)?,
            opcode::POP => drop(self.pop()?),
            opcode::POP_MARK => drop(self.pop_marked()?),
            refused => return Err(Fault::Opcode { opcode: opcode::name(refused), offset: self.opcode_at }),
        }
        Ok(None)
    }

    fn protocol(&mut self) -> Result<(), Fault> {
        match self.u8()? {
            2..=5 => Ok(()),
            other => Err(self.malformed(format!("pickle protocol {other}, expected 2 to 5"))),
        }
    }

    // Numbers, text, bytes.

    fn signed(&mut self, width: usize) -> Result<(), Fault> {
        let value = little_endian(self.take(width)?, true);
        self.push(Node::Int(value))
    }

    fn unsigned(&mut self, width: usize) -> Result<(), Fault> {
        let value = little_endian(self.take(width)?, false);
        self.push(Node::Int(value))
    }

    fn long(&mut self) -> Result<(), Fault> {
        match self.u8()? {
            width @ 0..=8 => self.signed(usize::from(width)),
            width => Err(self.malformed(format!("an integer of {width} bytes, expected at most 8"))),
        }
    }

    fn float(&mut self) -> Result<(), Fault> {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(self.take(8)?);
        self.push(Node::Float(f64::from_be_bytes(bytes)))
    }

    fn text(&mut self, length_width: usize) -> Result<(), Fault> {
        let bytes = self.prefixed(length_width)?.to_vec();
        let text = String::from_utf8(bytes).map_err(|_| self.malformed("text that is not UTF-8".to_owned()))?;
        self.push(Node::Text(text))
    }

    fn raw(&mut self, length_width: usize) -> Result<(), Fault> {
        let bytes = self.prefixed(length_width)?.to_vec();
        self.push(Node::Bytes(bytes))
    }

    // Containers.

    fn collect_marked(&mut self, node: fn(Vec<Id>) -> Node) -> Result<(), Fault> {
        let items = self.pop_marked()?;
        self.hold(items.len())?;
        self.push(node(items))
    }

    fn tuple(&mut self, length: usize) -> Result<(), Fault> {
        let mut items = Vec::with_capacity(length);
        for _ in 0..length {
            items.push(self.pop()?);
        }
        items.reverse();
        self.hold(length)?;
        self.push(Node::Tuple(items))
    }

    fn append(&mut self) -> Result<(), Fault> {
        let item = self.pop()?;
        self.extend_top(vec![item])
    }

    fn append_marked(&mut self) -> Result<(), Fault> {
        let items = self.pop_marked()?;
        self.extend_top(items)
    }

    fn extend_top(&mut self, new: Vec<Id>) -> Result<(), Fault> {
        self.hold(new.len())?;
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::List(items) | Node::Set(items) => items.extend(new),
            Node::Call(call) => call.items.extend(new),
            _ => return Err(self.malformed(format!("items added to {}", self.kind(top)))),
        }
        Ok(())
    }

    fn set_item(&mut self) -> Result<(), Fault> {
        let value = self.pop()?;
        let key = self.pop()?;
        self.set_on_top(vec![(key, value)])
    }

    fn set_marked_items(&mut self) -> Result<(), Fault> {
        let items = self.pop_marked()?;
        if items.len() % 2 == 1 {
            return Err(self.malformed("a key without a value".to_owned()));
        }
        self.set_on_top(items.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect())
    }

    fn set_on_top(&mut self, new: Vec<(Id, Id)>) -> Result<(), Fault> {
        self.hold(2 * new.len())?;
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Dict(entries) => entries.extend(new),
            Node::Call(call) => call.entries.extend(new),
            _ => return Err(self.malformed(format!("entries set on {}", self.kind(top)))),
        }
        Ok(())
    }

    // Names and calls.

    fn global(&mut self) -> Result<(), Fault> {
        let class = format!("{}.{}", self.line()?, self.line()?);
        self.push_class(class)
    }

    fn stack_global(&mut self) -> Result<(), Fault> {
        let (name, module) = (self.pop()?, self.pop()?);
        let (Node::Text(name), Node::Text(module)) = (&self.nodes[name], &self.nodes[module]) else {
            return Err(self.malformed("a class whose module and name are not text".to_owned()));
        };
        let class = format!("{module}.{name}");
        self.push_class(class)
    }

    fn push_class(&mut self, class: String) -> Result<(), Fault> {
        if !classes::is_known(&class) {
            return Err(Fault::Class { class, offset: self.opcode_at });
        }
        self.push(Node::Class(class))
    }

    fn call(&mut self) -> Result<(), Fault> {
        let (arguments, class) = (self.pop()?, self.pop()?);
        if !matches!((&self.nodes[class], &self.nodes[arguments]), (Node::Class(_), Node::Tuple(_))) {
            let detail = format!("{} called with {}", self.kind(class), self.kind(arguments));
            return Err(self.malformed(detail));
        }
        self.push(Node::Call(Box::new(CallNode { class, arguments, state: None, entries: vec![], items: vec![] })))
    }

    fn build(&mut self) -> Result<(), Fault> {
        let state = self.pop()?;
        let top = self.top()?;
        match &mut self.nodes[top] {
            Node::Call(call) => call.state = Some(state),
            _ => return Err(self.malformed(format!("state set on {}", self.kind(top)))),
        }
        Ok(())
    }

    fn persistent(&mut self) -> Result<(), Fault> {
        let reference = self.pop()?;
        self.push(Node::Persistent(reference))
    }

    // The memo.

    fn put(&mut self, width: usize) -> Result<(), Fault> {
        let slot = little_endian(self.take(width)?, false) as u32;
        self.remember(slot)
    }

    fn memoize(&mut self) -> Result<(), Fault> {
        self.remember(self.memo.len() as u32)
    }

    fn remember(&mut self, slot: u32) -> Result<(), Fault> {
        let top = self.top()?;
        self.memo.insert(slot, top);
        within(self.memo.len(), limits::PICKLE_OBJECTS, "remembered objects")
    }

    fn get(&mut self, width: usize) -> Result<(), Fault> {
        let slot = little_endian(self.take(width)?, false) as u32;
        let Some(&id) = self.memo.get(&slot) else {
            return Err(self.malformed(format!("memo {slot} is used before it is set")));
        };
        self.stack.push(id);
        within(self.stack.len(), limits::PICKLE_REFERENCES, REFERENCES)
    }

    // Stack and bytes.

    fn push(&mut self, node: Node) -> Result<(), Fault> {
        within(self.nodes.len() + 1, limits::PICKLE_OBJECTS, "objects")?;
        self.stack.push(self.nodes.len());
        self.nodes.push(node);
        Ok(())
    }

    fn mark(&mut self) -> Result<(), Fault> {
        self.marks.push(self.stack.len());
        within(self.marks.len(), limits::PICKLE_DEPTH, "open marks")
    }

    fn hold(&mut self, n: usize) -> Result<(), Fault> {
        self.n_held += n;
        within(self.n_held, limits::PICKLE_REFERENCES, REFERENCES)
    }

    /// Takes the topmost object; what lies below an open mark is out of reach.
    fn pop(&mut self) -> Result<Id, Fault> {
        let id = self.top()?;
        self.stack.pop();
        Ok(id)
    }

    fn top(&self) -> Result<Id, Fault> {
        let floor = self.marks.last().copied().unwrap_or(0);
        match self.stack.last() {
            Some(&id) if self.stack.len() > floor => Ok(id),
            _ => Err(self.malformed("an object is taken from an empty stack".to_owned())),
        }
    }

    /// Takes all objects above the last mark, and the mark.
    fn pop_marked(&mut self) -> Result<Vec<Id>, Fault> {
        match self.marks.pop() {
            Some(height) => Ok(self.stack.split_off(height)),
            None => Err(self.malformed("objects are taken up to a mark that was never set".to_owned())),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        match self.bytes[self.at..].get(..length) {
            Some(bytes) => {
                self.at += length;
                Ok(bytes)
            }
            None => Err(Fault::Truncated { offset: self.bytes.len() }),
        }
    }

    fn u8(&mut self) -> Result<u8, Fault> {
        self.take(1).map(|bytes| bytes[0])
    }

    /// Bytes after their length, which is checked against what is there before anything is allocated.
    fn prefixed(&mut self, length_width: usize) -> Result<&'a [u8], Fault> {
        let length = little_endian(self.take(length_width)?, false);
        self.take(usize::try_from(length).unwrap_or(usize::MAX))
    }

    fn line(&mut self) -> Result<String, Fault> {
        let rest = &self.bytes[self.at..];
        let Some(length) = rest.iter().position(|&byte| byte == b'\n') else {
            return Err(Fault::Truncated { offset: self.bytes.len() });
        };
        self.at += length + 1;
        String::from_utf8(rest[..length].to_vec()).map_err(|_| self.malformed("a name that is not UTF-8".to_owned()))
    }

    fn kind(&self, id: Id) -> &str {
        graph::kind(&self.nodes, id)
    }

    fn malformed(&self, detail: String) -> Fault {
        Fault::Malformed { offset: self.opcode_at, detail }
    }
}

const REFERENCES: &str = "references between objects";

fn within(found: usize, limit: usize, unit: &'static str) -> Result<(), Fault> {
    if found > limit { Err(Fault::TooLarge { limit, unit }) } else { Ok(()) }
}

/// A little-endian integer of up to eight bytes. An unsigned one beyond 63 bits comes out negative, which no length is.
pub(super) fn little_endian(bytes: &[u8], signed: bool) -> i64 {
    let negative = signed && bytes.last().is_some_and(|&byte| byte & 0x80 != 0);
    let mut padded = [if negative { 0xff } else { 0 }; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    i64::from_le_bytes(padded)
}
